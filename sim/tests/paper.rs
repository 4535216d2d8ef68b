//! The report about a paper, as a person or a script gets it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

fn starling_sim(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_starling-sim"))
        .args(arguments)
        .output()
        .expect("the binary was built")
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if folder.exists() {
        fs::remove_dir_all(&folder).expect("made by an earlier run of this test");
    }
    folder
}

fn report(folder: &Path) {
    let out = folder.to_str().expect("a path in UTF-8");
    let output = starling_sim(&["paper", "xu2023", "--out", out, "--quick", "--seeds", "1"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(Path::new(said.trim_end()), folder.join("report.md"));
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect(name)
}

/// Rows of cells, the head first.
fn csv(text: &str) -> Vec<Vec<String>> {
    let mut rows = vec![vec![String::new()]];
    let mut is_quoted = false;
    for character in text.trim_end().chars() {
        let row = rows.last_mut().expect("it starts with one");
        match character {
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => row.push(String::new()),
            '\n' if !is_quoted => rows.push(vec![String::new()]),
            other => row.last_mut().expect("a row starts with a cell").push(other),
        }
    }
    rows
}

/// Every table of a page of Markdown, as rows of cells, the head first.
fn tables(markdown: &str) -> Vec<Vec<Vec<String>>> {
    let mut tables = vec![Vec::new()];
    for line in markdown.lines() {
        match line.strip_prefix("| ").and_then(|line| line.strip_suffix(" |")) {
            Some(cells) => {
                let row = cells.split(" | ").map(str::to_owned).collect();
                tables.last_mut().expect("it starts with one").push(row);
            }
            None if line.starts_with("|---") => {}
            None => tables.push(Vec::new()),
        }
    }
    tables.retain(|table| !table.is_empty());
    tables
}

/// Whether a cell for people is a cell for programs, rounded.
fn is_shown_as(exact: &str, shown: &str) -> bool {
    match exact.parse::<f64>() {
        Ok(number) => {
            let decimals = shown.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            format!("{number:.decimals$}") == shown
        }
        Err(_) => exact == shown || (exact.is_empty() && shown == "-"),
    }
}

#[test]
fn the_page_shows_the_numbers_of_the_files() {
    let folder = folder("numbers");
    report(&folder);
    let shown = tables(&read(&folder, "report.md"));
    let names = [
        "headline",
        "inference_time",
        "inference_time_by_dnn",
        "fairness_by_dnn",
        "fairness",
        "iterations_ratio",
        "sensitivity",
    ];
    for name in names {
        let exact = csv(&read(&folder, &format!("{name}.csv")));
        let table = shown.iter().find(|table| table[0] == exact[0]).expect(name);
        assert_eq!(exact.len(), table.len(), "{name}");
        for (exact, shown) in exact.iter().zip(table) {
            let pairs = || exact.iter().zip(shown);
            let same = pairs().all(|(exact, shown)| is_shown_as(exact, shown));
            assert!(same && exact.len() == shown.len(), "{name}: {exact:?} shown as {shown:?}");
        }
        assert!(exact.len() > 1, "{name} is empty");
    }
}

#[test]
fn the_figures_come_from_the_runs() {
    let folder = folder("runs");
    report(&folder);
    let runs = csv(&read(&folder, "runs.csv"));
    let column = |name: &str| runs[0].iter().position(|column| column == name).expect(name);
    let [algorithm, time] = [column("algorithm"), column("mean_inference_time_s")];
    let [slots, eps, seed] = [column("slots_of_share"), column("eps_nats"), column("seed")];
    let of = |name: &str| {
        let usual = |run: &&Vec<String>| run[slots] == "2" && run[eps] == "0.05";
        let runs = runs[1..].iter().filter(|run| run[algorithm] == name).filter(usual);
        let cases =
            runs.map(|run| (run[..=seed].to_vec(), run[time].parse::<f64>().expect("seconds")));
        cases.collect::<Vec<_>>()
    };
    // With one seed, a scenario's figure is that of its run.
    let mut ratios: Vec<f64> = of("greedy")
        .iter()
        .zip(of("auction"))
        .map(|(greedy, auction)| {
            assert_eq!(greedy.0, auction.0, "not the same case");
            greedy.1 / auction.1
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let table = csv(&read(&folder, "inference_time.csv"));
    let row = table.iter().find(|row| row[0] == "greedy").expect("a row for greedy");
    let close =
        |cell: &str, ratio: f64| (cell.parse::<f64>().expect("a ratio") - ratio).abs() < 1e-9;
    assert!(close(&row[1], least) && close(&row[3], most), "{row:?}: {least} to {most}");
}

#[test]
fn the_same_seeds_give_the_same_files() {
    let folders = [folder("once"), folder("twice")];
    folders.iter().for_each(|folder| report(folder));
    let entries = fs::read_dir(&folders[0]).expect("the report's folder");
    let names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"))
        .collect();
    assert_eq!(names.len(), 15, "{names:?}");
    for name in names {
        assert_eq!(read(&folders[0], &name), read(&folders[1], &name), "{name}");
    }
}

#[test]
fn the_page_says_what_it_is_and_its_pictures_exist() {
    let folder = folder("words");
    report(&folder);
    let page = read(&folder, "report.md");
    for words in [
        "our model; the paper's own parameters were not available",
        "A quick run",
        "starling-sim paper xu2023 --out DIR --seeds 1 --quick",
    ] {
        assert!(page.contains(words), "{words}");
    }
    let pictures: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("![")?.split_once("](")?.1.strip_suffix(')'))
        .collect();
    assert_eq!(pictures.len(), 5);
    for picture in pictures {
        let svg = read(&folder, picture);
        assert!(
            svg.starts_with("<svg") && svg.contains("auction") && !svg.contains("NaN"),
            "{picture}"
        );
    }
}

/// A quick report about a planner.
fn planner_report(paper: &str, folder: &Path) {
    let out = folder.to_str().expect("a path in UTF-8");
    let output = starling_sim(&["paper", paper, "--out", out, "--quick"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let said = String::from_utf8(output.stdout).expect("text");
    assert_eq!(Path::new(said.trim_end()), folder.join("report.md"));
}

/// The page shows the numbers of the files, the pictures are there, and a second run gives the same.
fn check_planner_report(paper: &str, names: &[&str], pictures: &[&str], words: &[&str]) {
    let folders = ["once", "twice"].map(|time| folder(&format!("{paper}-{time}")));
    folders.iter().for_each(|folder| planner_report(paper, folder));
    let page = read(&folders[0], "report.md");
    let shown = tables(&page);
    for name in names {
        let exact = csv(&read(&folders[0], &format!("{name}.csv")));
        let table = shown.iter().find(|table| table[0] == exact[0]).expect(name);
        assert!(exact.len() == table.len() && exact.len() > 1, "{name}");
        for (exact, shown) in exact.iter().zip(table) {
            let same = exact.iter().zip(shown).all(|(exact, shown)| is_shown_as(exact, shown));
            assert!(same && exact.len() == shown.len(), "{name}: {exact:?} shown as {shown:?}");
        }
    }
    for picture in pictures {
        let svg = read(&folders[0], picture);
        assert!(page.contains(&format!("]({picture})")), "{picture}");
        assert!(svg.starts_with("<svg") && !svg.contains("NaN"), "{picture}");
    }
    for words in words {
        assert!(page.contains(words), "{words}");
    }
    let entries = fs::read_dir(&folders[0]).expect("the report's folder");
    let files: Vec<_> = entries.map(|entry| entry.expect("an entry").file_name()).collect();
    // The page, the tables, `times.csv`, the pictures.
    assert_eq!(files.len(), 2 + names.len() + pictures.len(), "{files:?}");
    for file in files {
        let name = file.to_str().expect("a plain name");
        assert_eq!(read(&folders[0], name), read(&folders[1], name), "{name}");
    }
}

#[test]
fn the_report_about_dina_is_whole_and_repeats() {
    check_planner_report(
        "dina2020",
        &["headline", "features", "two_way", "pf", "observed"],
        &["ratio.svg", "seconds.svg"],
        &[
            "our model; the paper's own parameters were not available",
            "A quick run",
            "starling-sim paper dina2020 --out DIR --quick",
        ],
    );
}

#[test]
fn the_report_about_edgeci_is_whole_and_repeats() {
    check_planner_report(
        "edgeci2024",
        &["headline", "by_dnn", "by_rate", "pf", "observed"],
        &["saved.svg", "seconds_relayed.svg", "seconds_direct.svg"],
        &[
            "our model; the paper's own parameters were not available",
            "A quick run",
            "starling-sim paper edgeci2024 --out DIR --quick",
        ],
    );
}

/// The column of a table of a file, as numbers.
fn numbers(table: &[Vec<String>], name: &str) -> Vec<f64> {
    let at = table[0].iter().position(|column| column == name).expect(name);
    table[1..].iter().map(|row| row[at].parse().expect("a number")).collect()
}

#[test]
fn headlines_about_planners_come_from_the_scenarios() {
    let (dina, edgeci) = (folder("dina-times"), folder("edgeci-times"));
    planner_report("dina2020", &dina);
    planner_report("edgeci2024", &edgeci);
    let times = csv(&read(&dina, "times.csv"));
    let pairs = numbers(&times, "neurosurgeon (s)").into_iter().zip(numbers(&times, "dina (s)"));
    let most = pairs.map(|(rival, dina)| rival / dina).fold(0.0, f64::max);
    let shown = numbers(&csv(&read(&dina, "headline.csv")), "most");
    assert!((shown[0] - most).abs() < 1e-9, "{shown:?} {most}");
    let times = csv(&read(&edgeci, "times.csv"));
    let relayed = |row: &&Vec<String>| row[3] == "parallel" && row[4] == "relayed";
    let some: Vec<Vec<String>> =
        [&times[0]].into_iter().chain(times[1..].iter().filter(relayed)).cloned().collect();
    let pairs = numbers(&some, "layer-wise (s)").into_iter().zip(numbers(&some, "edgeci (s)"));
    let most = pairs.map(|(rival, edgeci)| (1.0 - edgeci / rival) * 100.0).fold(0.0, f64::max);
    let shown = numbers(&csv(&read(&edgeci, "headline.csv")), "most");
    assert!((shown[0] - most).abs() < 1e-9, "{shown:?} {most}");
}

#[test]
fn a_stream_in_virtual_time_is_as_fast_as_predicted() {
    let folder = folder("observed");
    planner_report("dina2020", &folder);
    let seen = csv(&read(&folder, "observed.csv"));
    let rates = numbers(&seen, "rate predicted (1/s)").into_iter();
    for (predicted, observed) in rates.zip(numbers(&seen, "rate observed (1/s)")) {
        // The prediction is careful about who sends to several.
        assert!((0.98..1.1).contains(&(observed / predicted)), "{observed} of {predicted}");
    }
}

fn check_refused(arguments: &[&str], complaint: &str) {
    let output = starling_sim(arguments);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains(complaint), "{stderr}");
    assert!(output.stdout.is_empty());
}

#[test]
fn flags_that_make_no_sense_are_refused_with_a_reason() {
    let refused = folder("refused");
    fs::create_dir_all(&refused).expect("made");
    let file = refused.join("file");
    fs::write(&file, "not a folder").expect("written");
    let under = file.join("report");
    let (file, under) = (file.to_str().expect("UTF-8"), under.to_str().expect("UTF-8"));
    check_refused(&["paper", "xu2023", "--out", file], &format!("cannot write to --out {file}"));
    check_refused(&["paper", "xu2023", "--out", under], &format!("cannot write to --out {under}"));
    #[cfg(target_os = "linux")]
    check_refused(&["paper", "xu2023", "--out", "/proc"], "cannot write to --out /proc");
    check_refused(&["paper", "xu2023", "--out", under, "--seeds", "0"], "--seeds");
    check_refused(&["paper", "xu2023"], "--out");
    check_refused(&["paper", "dina2020", "--out", file], "cannot write to --out");
    check_refused(&["paper", "edgeci2024"], "--out");
    check_refused(&["paper", "xu1923", "--out", under], "xu1923");
}
