//! What share of the processors the system lets this process use: the quota of its control group,
//! as containers have it. And how much of them it has used.
//!
//! A quota makes nothing slower that is shorter than its period. Whoever times a run of a
//! millisecond sees the whole processor, and then stands still for ten.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

/// The cores that this process may use, the least that any group above it says; nothing where none
/// says anything.
pub(crate) fn cores() -> Option<f64> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    least(&mounts, &groups)
}

/// The processor's time that this thread or this process has used, as the clock says.
pub(crate) fn processor_time(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    let nanos = u32::try_from(time.tv_nsec).unwrap_or(0);
    Duration::new(u64::try_from(time.tv_sec).unwrap_or(0), nanos)
}

fn least(mounts: &str, groups: &str) -> Option<f64> {
    let groups = groups.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        Some((fields.next()?, fields.next()?))
    });
    let quotas = groups.filter_map(|(controllers, group)| {
        let mount = mounts.lines().find_map(|line| mount_for(line, controllers))?;
        above(&mount, group).iter().filter_map(|folder| quota(folder)).min_by(f64::total_cmp)
    });
    quotas.min_by(f64::total_cmp)
}

/// Where the groups of these controllers are, if this line of the mounts says so and processors are
/// among them. The second version names no controllers.
fn mount_for(line: &str, controllers: &str) -> Option<PathBuf> {
    let mut fields = line.split_whitespace().skip(1);
    let (folder, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
    let has_cpu = |list: &str| list.split(',').any(|name| name == "cpu");
    let found = match kind {
        "cgroup" => has_cpu(controllers) && has_cpu(options),
        "cgroup2" => controllers.is_empty(),
        _ => false,
    };
    found.then(|| PathBuf::from(folder))
}

/// The group and all above it. Inside a container, the mount is the container's own group, and what
/// it is called outside leads nowhere.
fn above(mount: &Path, group: &str) -> Vec<PathBuf> {
    let folder = mount.join(group.trim_start_matches('/'));
    let folder = if folder.is_dir() { folder } else { mount.to_owned() };
    let within = folder.ancestors().take_while(|folder| folder.starts_with(mount));
    within.take(DEPTH_MAX).map(Path::to_owned).collect()
}

fn quota(folder: &Path) -> Option<f64> {
    let read = |file: &str| fs::read_to_string(folder.join(file)).ok();
    let (quota, period) = match read("cpu.max") {
        Some(text) => {
            let (quota, period) = text.trim().split_once(' ')?;
            (quota.to_owned(), period.to_owned())
        }
        None => (read("cpu.cfs_quota_us")?, read("cpu.cfs_period_us")?),
    };
    // Without a limit the one says "max", and the other -1.
    let (quota, period): (f64, f64) = (quota.trim().parse().ok()?, period.trim().parse().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// Nobody nests groups like this.
const DEPTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    fn check(files: &[(&str, &str)], mount: &str, groups: &str, expected: Option<f64>) {
        let root = tempfile::tempdir().expect("a folder");
        for (file, text) in files {
            let file = root.path().join(file);
            fs::create_dir_all(file.parent().expect("it has one")).expect("made");
            fs::write(file, text).expect("written");
        }
        let mounts = format!(
            "tmpfs /x tmpfs rw 0 0\n{}\n",
            mount.replace("ROOT", &root.path().display().to_string())
        );
        assert_eq!(least(&mounts, groups), expected, "{files:?}");
    }

    #[test]
    fn the_least_of_all_quotas_above_counts() {
        let v2 = "cgroup2 ROOT cgroup2 rw 0 0";
        let files = [("a/cpu.max", "50000 100000\n"), ("a/b/cpu.max", "max 100000\n")];
        check(&files, v2, "0::/a/b\n", Some(0.5));
        check(&files, v2, "0::/\n", None);
        check(&[("cpu.max", "150000 100000")], v2, "0::/not/seen/in/here", Some(1.5));
        let v1 = "cgroup ROOT cgroup rw,relatime,cpu,cpuacct 0 0";
        let files = [("a/cpu.cfs_quota_us", "4000\n"), ("a/cpu.cfs_period_us", "20000\n")];
        check(&files, v1, "3:memory:/z\n2:cpu,cpuacct:/a\n", Some(0.2));
        check(&files, v1, "3:memory:/a\n", None);
        let free = [("a/cpu.cfs_quota_us", "-1\n"), ("a/cpu.cfs_period_us", "20000\n")];
        check(&free, v1, "2:cpu,cpuacct:/a\n", None);
        check(&[("cpu.max", "junk")], v2, "junk", None);
    }
}
