//! A processor and memory for each machine: control groups, of the first version or the second.
//!
//! Each machine has a group. Its quota is what makes a slow board of a fast processor: in every
//! period its processes together run for their share, and wait for the rest of it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use super::{Failure, boards::Limits};

/// Where groups can be made.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hierarchies {
    /// One folder for each controller.
    V1 { cpu: PathBuf, cpuacct: PathBuf, memory: PathBuf },
    /// One for all.
    V2(PathBuf),
}

/// The groups of one testbed, under one parent. They are gone when it is dropped.
pub(super) struct Groups {
    hierarchies: Hierarchies,
    name: String,
    machines: Vec<String>,
}

impl Groups {
    /// A parent for the groups of machines.
    pub(super) fn new(name: &str) -> Result<Self, Failure> {
        let mounts = read(Path::new("/proc/self/mounts"))?;
        let own = read(Path::new("/proc/self/cgroup"))?;
        let hierarchies = Hierarchies::find(&mounts, &own).ok_or_else(|| {
            Failure::System("no control groups with the controllers cpu and memory".to_owned())
        })?;
        let groups = Self { hierarchies, name: name.to_owned(), machines: Vec::new() };
        for folder in groups.hierarchies.folders() {
            make(&folder.join(name))?;
        }
        groups.prepare()?;
        Ok(groups)
    }

    /// The boards get their quotas whatever else runs here: they come first.
    fn prepare(&self) -> Result<(), Failure> {
        match &self.hierarchies {
            Hierarchies::V1 { cpu, .. } => {
                write(&cpu.join(&self.name).join("cpu.shares"), "262144")
            }
            Hierarchies::V2(root) => {
                let parent = root.join(&self.name);
                for folder in [root, &parent] {
                    write(&folder.join("cgroup.subtree_control"), "+cpu +memory")?;
                }
                write(&parent.join("cpu.weight"), "10000")
            }
        }
    }

    /// One machine more. Returns its number, from 0.
    pub(super) fn add(&mut self, limits: &Limits) -> Result<usize, Failure> {
        let machine = self.machines.len();
        let name = format!("{}/{machine}", self.name);
        for folder in self.hierarchies.folders() {
            make(&folder.join(&name))?;
        }
        self.machines.push(name);
        if let Some(cores) = limits.cores {
            self.set_cores(machine, cores)?;
        }
        if let Some(mib) = limits.memory_mib {
            let file = match self.hierarchies {
                Hierarchies::V1 { .. } => "memory.limit_in_bytes",
                Hierarchies::V2(_) => "memory.max",
            };
            write(&self.memory(machine).join(file), &(mib << 20).to_string())?;
        }
        Ok(machine)
    }

    /// From now on a machine may use so many cores.
    pub(super) fn set_cores(&self, machine: usize, cores: f64) -> Result<(), Failure> {
        let (quota, period) = quota(cores);
        let folder = self.cpu(machine);
        match self.hierarchies {
            Hierarchies::V1 { .. } => {
                // Neither value may be out of range beside the other's old one.
                write(&folder.join("cpu.cfs_quota_us"), "-1")?;
                write(&folder.join("cpu.cfs_period_us"), &period.to_string())?;
                write(&folder.join("cpu.cfs_quota_us"), &quota.to_string())
            }
            Hierarchies::V2(_) => write(&folder.join("cpu.max"), &format!("{quota} {period}")),
        }
    }

    /// The files that take in a process, by its number.
    pub(super) fn entrances(&self, machine: usize) -> Vec<PathBuf> {
        let folders = self.hierarchies.folders();
        folders.iter().map(|f| f.join(&self.machines[machine]).join("cgroup.procs")).collect()
    }

    /// Seconds of processor time that a machine has used so far.
    pub(super) fn cpu_seconds(&self, machine: usize) -> Result<f64, Failure> {
        match &self.hierarchies {
            Hierarchies::V1 { cpuacct, .. } => {
                let file = cpuacct.join(&self.machines[machine]).join("cpuacct.usage");
                Ok(number(&read(&file)?) / 1e9)
            }
            Hierarchies::V2(_) => {
                let text = read(&self.cpu(machine).join("cpu.stat"))?;
                let usage = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
                Ok(usage.map_or(0.0, number) / 1e6)
            }
        }
    }

    /// The most memory that a machine has used so far, in bytes; files that it has read lately
    /// count, as they do against its limit. Nothing where the system doesn't say.
    pub(super) fn memory_peak(&self, machine: usize) -> Option<u64> {
        let file = match self.hierarchies {
            Hierarchies::V1 { .. } => "memory.max_usage_in_bytes",
            Hierarchies::V2(_) => "memory.peak",
        };
        read(&self.memory(machine).join(file)).ok()?.trim().parse().ok()
    }

    /// The memory that a machine's processes have for themselves now, in bytes, without what backs
    /// files. Nothing where the system doesn't say.
    pub(super) fn memory_own(&self, machine: usize) -> Option<u64> {
        let entry = match self.hierarchies {
            Hierarchies::V1 { .. } => "total_rss ",
            Hierarchies::V2(_) => "anon ",
        };
        let text = read(&self.memory(machine).join("memory.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix(entry))?.trim().parse().ok()
    }

    fn cpu(&self, machine: usize) -> PathBuf {
        match &self.hierarchies {
            Hierarchies::V1 { cpu: folder, .. } | Hierarchies::V2(folder) => {
                folder.join(&self.machines[machine])
            }
        }
    }

    fn memory(&self, machine: usize) -> PathBuf {
        match &self.hierarchies {
            Hierarchies::V1 { memory: folder, .. } | Hierarchies::V2(folder) => {
                folder.join(&self.machines[machine])
            }
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        for name in self.machines.iter().chain([&self.name]) {
            for folder in self.hierarchies.folders() {
                remove(&folder.join(name));
            }
        }
    }
}

impl Hierarchies {
    /// Where this process may make groups: below its own, whose limits then hold for all; at the
    /// root of the second version, which alone may hold processes beside groups.
    fn find(mounts: &str, own: &str) -> Option<Self> {
        let v1 = |controller| {
            let root =
                mounts.lines().find_map(|line| mount_of(line, "cgroup", Some(controller)))?;
            let group = own.lines().find_map(|line| group_of(line, controller)).unwrap_or("");
            let below = root.join(group.trim_start_matches('/'));
            Some(if below.is_dir() { below } else { root })
        };
        if let (Some(cpu), Some(cpuacct), Some(memory)) = (v1("cpu"), v1("cpuacct"), v1("memory")) {
            return Some(Self::V1 { cpu, cpuacct, memory });
        }
        let root = mounts.lines().find_map(|line| mount_of(line, "cgroup2", None))?;
        let controllers = fs::read_to_string(root.join("cgroup.controllers")).ok()?;
        let has = |name| controllers.split_whitespace().any(|controller| controller == name);
        (has("cpu") && has("memory")).then_some(Self::V2(root))
    }

    /// Each folder once: controllers may share one.
    fn folders(&self) -> Vec<PathBuf> {
        let mut folders = match self {
            Self::V1 { cpu, cpuacct, memory } => {
                vec![cpu.clone(), cpuacct.clone(), memory.clone()]
            }
            Self::V2(root) => vec![root.clone()],
        };
        folders.sort();
        folders.dedup();
        folders
    }
}

/// The folder that a line of `/proc/self/mounts` is about, if it is of this kind and controller.
fn mount_of(line: &str, kind: &str, controller: Option<&str>) -> Option<PathBuf> {
    let mut fields = line.split_whitespace().skip(1);
    let (folder, found, options) = (fields.next()?, fields.next()?, fields.next()?);
    let has = |name| options.split(',').any(|option| option == name);
    (found == kind && controller.is_none_or(has)).then(|| PathBuf::from(folder))
}

/// The group that a line of `/proc/self/cgroup` names for this controller.
fn group_of<'a>(line: &'a str, controller: &str) -> Option<&'a str> {
    let mut fields = line.splitn(3, ':').skip(1);
    let (controllers, group) = (fields.next()?, fields.next()?);
    controllers.split(',').any(|name| name == controller).then_some(group)
}

/// A quota and its period in microseconds. Short periods make a machine that is slow rather than
/// one that stutters, but the kernel takes no quota below a millisecond.
pub(super) fn quota(cores: f64) -> (u64, u64) {
    let period = (QUOTA_MIN_US / cores).clamp(PERIOD_US, PERIOD_MAX_US);
    ((cores * period).round().max(QUOTA_MIN_US) as u64, period.round() as u64)
}

fn make(folder: &Path) -> Result<(), Failure> {
    fs::create_dir(folder).map_err(|error| complain(folder, &error))
}

/// A group can go when its last process is gone, which takes the kernel a moment.
fn remove(folder: &Path) {
    let until = Instant::now() + REMOVAL_MAX;
    while let Err(error) = fs::remove_dir(folder) {
        if error.kind() == io::ErrorKind::NotFound {
            return;
        }
        if Instant::now() >= until {
            return super::warn(format_args!("{}: {error}", folder.display()));
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn write(file: &Path, text: &str) -> Result<(), Failure> {
    fs::write(file, text).map_err(|error| complain(file, &error))
}

fn read(file: &Path) -> Result<String, Failure> {
    fs::read_to_string(file).map_err(|error| complain(file, &error))
}

fn complain(path: &Path, error: &io::Error) -> Failure {
    Failure::System(format!("{}: {error}", path.display()))
}

fn number(text: &str) -> f64 {
    text.trim().parse().unwrap_or(0.0)
}

const PERIOD_US: f64 = 20_000.0;
const PERIOD_MAX_US: f64 = 1_000_000.0;
const QUOTA_MIN_US: f64 = 1_000.0;
const REMOVAL_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotas_are_shares_of_short_periods() {
        for (cores, expected) in
            [(0.2, (4000, 20_000)), (1.5, (30_000, 20_000)), (0.01, (1000, 100_000))]
        {
            assert_eq!(quota(cores), expected, "{cores}");
        }
    }

    #[test]
    fn the_first_version_is_found_by_its_controllers() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path().display();
        fs::create_dir_all(folder.path().join("memory/job/7")).expect("made");
        let mounts = format!(
            "tmpfs {root} tmpfs rw 0 0\n\
             cgroup {root}/cpu cgroup rw,relatime,cpu,cpuacct 0 0\n\
             cgroup {root}/memory cgroup rw,relatime,memory 0 0\n"
        );
        let own = "4:memory:/job/7\n2:cpu,cpuacct:/gone\n0::/\n";
        let cpu = folder.path().join("cpu");
        let found = Hierarchies::find(&mounts, own).expect("it is there");
        let memory = folder.path().join("memory/job/7");
        assert_eq!(found, Hierarchies::V1 { cpu: cpu.clone(), cpuacct: cpu.clone(), memory });
        assert_eq!(found.folders().len(), 2, "controllers that share a folder");
        assert_eq!(Hierarchies::find("", own), None);
    }

    /// Plain files in the place of the kernel's.
    #[test]
    fn the_second_version_is_written_and_read() {
        let folder = tempfile::tempdir().expect("a folder");
        let root = folder.path();
        fs::write(root.join("cgroup.controllers"), "cpuset cpu io memory pids\n").expect("written");
        let mounts = format!("cgroup2 {} cgroup2 rw,nosuid 0 0\n", root.display());
        let hierarchies = Hierarchies::find(&mounts, "0::/user.slice\n").expect("it is there");
        assert_eq!(hierarchies, Hierarchies::V2(root.to_owned()));
        let mut groups = Groups { hierarchies, name: "t".to_owned(), machines: Vec::new() };
        make(&root.join("t")).expect("made");
        groups.prepare().expect("prepared");
        let limits = Limits { cores: Some(0.25), memory_mib: Some(64), link_mbit: 1.0 };
        let machine = groups.add(&limits).expect("added");
        let group = root.join("t/0");
        assert_eq!(read(&group.join("cpu.max")).expect("written"), "5000 20000");
        assert_eq!(read(&group.join("memory.max")).expect("written"), "67108864");
        write(&group.join("cpu.stat"), "usage_usec 2500000\nuser_usec 1\n").expect("written");
        write(&group.join("memory.peak"), "4096\n").expect("written");
        assert_eq!(groups.cpu_seconds(machine).expect("there"), 2.5);
        assert_eq!(groups.memory_peak(machine), Some(4096));
        write(&group.join("memory.stat"), "anon 1024\nfile 3072\n").expect("written");
        assert_eq!(groups.memory_own(machine), Some(1024));
        assert_eq!(groups.entrances(machine), [group.join("cgroup.procs")]);
        for file in ["cpu.max", "memory.max", "cpu.stat", "memory.peak", "memory.stat"] {
            fs::remove_file(group.join(file)).expect("there");
        }
        for file in ["cgroup.subtree_control", "cpu.weight"] {
            fs::remove_file(root.join("t").join(file)).expect("written");
        }
        drop(groups);
        assert!(!root.join("t").exists());
    }
}
