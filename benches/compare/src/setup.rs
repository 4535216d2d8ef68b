//! What has to be there first: a Python environment with pinned packages, and the networks.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use starling_engine::Model;

use crate::contestant::{Kind, Result};
use crate::stats::Random;

/// Where everything is.
pub struct Setup {
    /// The interpreter of the environment.
    pub python: PathBuf,
    networks: PathBuf,
}

/// What goes into every contestant.
pub struct Input {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

impl Setup {
    /// Makes what is missing in the cache folder, which is beside the program if none is named.
    pub fn prepare(cache: Option<&Path>, kinds: &[Kind]) -> Result<Self> {
        let cache = match cache {
            Some(cache) => cache.to_owned(),
            None => {
                let program = std::env::current_exe()?;
                let target = program.ancestors().nth(2).ok_or("the program is in no folder")?;
                target.join("compare")
            }
        };
        fs::create_dir_all(&cache)?;
        let cache = fs::canonicalize(cache)?;
        let python = cache.join("venv/bin/python");
        let networks = cache.join("networks");
        let complete =
            NETWORKS.iter().all(|name| networks.join(name).with_extension("onnx").exists());
        if kinds.contains(&Kind::Onnxruntime) || !complete {
            environment(&cache)?;
        }
        if !complete {
            eprintln!("making the networks in {} (1.1 GB)", networks.display());
            done(Command::new(&python).arg(folder().join("networks.py")).arg(&networks))?;
        }
        Ok(Self { python, networks })
    }

    /// The files of the networks that the user has named, or of all.
    pub fn networks(&self, named: &[String]) -> Result<Vec<PathBuf>> {
        let bundled = folder().join("../../node/assets/efficientnet-lite0.onnx");
        if named.is_empty() {
            let made = NETWORKS.iter().map(|name| self.networks.join(format!("{name}.onnx")));
            return Ok(made.chain([bundled]).collect());
        }
        let find = |name: &String| {
            let file = PathBuf::from(name);
            if name == "efficientnet-lite0" {
                Ok(bundled.clone())
            } else if NETWORKS.contains(&name.as_str()) {
                Ok(self.networks.join(format!("{name}.onnx")))
            } else if file.is_file() {
                Ok(file)
            } else {
                let all = NETWORKS.join(", ");
                Err(format!("--network {name}: neither a file nor efficientnet-lite0, {all}")
                    .into())
            }
        };
        named.iter().map(find).collect()
    }
}

impl Input {
    /// Little-endian.
    pub fn bytes(&self) -> Vec<u8> {
        self.values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }
}

/// The folder of this package, where its Python files are.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The name of a network: that of its file.
pub fn name(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// Values from -1 to 1 for the model's one input, the same each time.
pub fn noise(path: &Path) -> Result<Input> {
    let model = Model::open(path)?;
    let [info] = model.inputs() else {
        return Err(format!("{}: only models of one input are compared", path.display()).into());
    };
    let mut random = Random::new(1);
    let next = |_| (random.next() >> 40) as f32 / (1_u64 << 23) as f32 - 1.0;
    Ok(Input { shape: info.shape.clone(), values: (0..info.elements()).map(next).collect() })
}

/// A virtual environment with what `requirements.txt` pins. Kept, and made again when that changes.
fn environment(cache: &Path) -> Result<()> {
    let (venv, wanted) = (cache.join("venv"), folder().join("requirements.txt"));
    let stamp = venv.join("requirements.txt");
    if fs::read(&stamp).ok() == Some(fs::read(&wanted)?) {
        return Ok(());
    }
    eprintln!("making a Python environment in {}", venv.display());
    done(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&venv))?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    done(Command::new(venv.join("bin/python")).args(pip).arg(&wanted))?;
    // Last, so that an installation that was broken off is made again.
    fs::copy(&wanted, &stamp)?;
    Ok(())
}

/// Runs a command to its end. What it prints is no part of the report.
fn done(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command
        .stdout(Stdio::null())
        .status()
        .map_err(|error| format!("{program}: {error}; Python 3 with its venv module is needed"))?;
    if status.success() { Ok(()) } else { Err(format!("{program} failed: {status}").into()) }
}

/// What `networks.py` makes.
const NETWORKS: [&str; 10] = [
    "alexnet",
    "mobilenetv1",
    "mobilenetv2",
    "nin",
    "resnet18",
    "resnet34",
    "resnet50",
    "squeezenet11",
    "tinyyolov2",
    "vgg16",
];
