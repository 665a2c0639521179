//! Versions of models on disk.
//!
//! ```text
//! DIR/TASK/state.json           champion, those before it, what happened when
//! DIR/TASK/versions/ID/         immutable: manifest.json, model.bin, probe.json, card.md, *.svg
//! DIR/TASK/lock                 held while anything of the task is written
//! ```
//!
//! A version is written beside its place, synced, and renamed into it; `state.json` likewise. So a training that is
//! killed leaves the registry as it was; what it left behind is removed by the next writer. The id of a version is the
//! beginning of the SHA-256 of its manifest, which holds the hashes of all its files, of the data, of the recipe and the
//! version of the code: the same training twice is the same version.

use std::{
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    ModelError,
    ensemble::Recipe,
    features::Input,
    matrix::{ColumnKind, Matrix},
    model::{BYTES_MAX, Model},
    table::hex,
    train::Evaluation,
};

/// Bytes of a file other than the model at most.
const SMALL_BYTES_MAX: u64 = 16 << 20;
/// Letters of an id.
const ID_LETTERS: usize = 12;
/// Versions of a task at most.
const VERSIONS_MAX: usize = 10_000;

/// What a version says of itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Task.
    pub task: String,
    /// SHA-256 of the training input.
    pub data_sha256: String,
    /// Rows of it.
    pub data_rows: usize,
    /// Label column, and what counts as positive.
    pub label: String,
    /// What counts as positive.
    pub positive: String,
    /// Group column.
    pub group: Option<String>,
    /// Time column.
    pub time: Option<String>,
    /// Version of the code.
    pub code: String,
    /// All parameters.
    pub recipe: Recipe,
    /// Columns that the model needs.
    pub inputs: Vec<Input>,
    /// How it did.
    pub evaluation: Evaluation,
    /// What was noticed in training.
    pub notes: Vec<String>,
    /// Its files with their SHA-256, in order of names.
    pub files: Vec<(String, String)>,
}

/// Stored rows with their predictions: the same model must give the same bits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// Encoded rows as bits of 32-bit floats.
    pub rows: Vec<Vec<u32>>,
    /// Probabilities as bits of 64-bit floats.
    pub probabilities: Vec<u64>,
}

/// What happened to a version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// When.
    pub at: cf_types::Time,
    /// `added`, `promoted`, `rolled back`, `challenges` or `challenges no more`.
    pub what: String,
    /// The version.
    pub version: String,
    /// Why.
    pub why: String,
}

/// What can change of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// The version that predicts.
    pub champion: Option<String>,
    /// Versions that predicted before, the latest last.
    pub before: Vec<String>,
    /// The version that is compared with the champion while alerts come in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub challenger: Option<String>,
    /// In order of time.
    pub happened: Vec<Happening>,
}

/// A folder of models.
#[derive(Clone, Debug)]
pub struct Registry {
    root: PathBuf,
}

/// The right to write; ends with the value or the process.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Registry {
    /// A registry in a folder, which need not be there yet.
    #[must_use]
    pub fn new(root: &Path) -> Registry {
        Registry { root: root.to_owned() }
    }

    /// Tasks with a folder, in order of names.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn tasks(&self) -> Result<Vec<String>, ModelError> {
        if !self.root.exists() {
            return Ok(Vec::new());
        }
        let mut tasks = names_in(&self.root)?;
        tasks.retain(|name| crate::task::Task::new(name).is_ok() && self.root.join(name).join("versions").is_dir());
        Ok(tasks)
    }

    /// What can change of a task; empty if there is none.
    ///
    /// # Errors
    /// The file is damaged.
    pub fn state(&self, task: &str) -> Result<State, ModelError> {
        let path = self.root.join(task).join("state.json");
        if !path.exists() {
            return Ok(State::default());
        }
        let bytes = read(&path, SMALL_BYTES_MAX)?;
        serde_json::from_slice(&bytes).map_err(|error| stored(&path, "state of models", error.to_string()))
    }

    /// Versions of a task, in order of ids.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn versions(&self, task: &str) -> Result<Vec<String>, ModelError> {
        let folder = self.root.join(task).join("versions");
        if !folder.exists() {
            return Ok(Vec::new());
        }
        let mut versions = names_in(&folder)?;
        versions.retain(|name| is_id(name));
        versions.truncate(VERSIONS_MAX);
        Ok(versions)
    }

    /// The id of a version by itself or by its beginning; `champion` is the one that predicts.
    ///
    /// # Errors
    /// There is none, or the beginning fits several.
    pub fn find(&self, task: &str, version: &str) -> Result<String, ModelError> {
        let none = || ModelError::NoVersion { task: task.to_owned(), version: version.to_owned() };
        if version == "champion" {
            let champion = self.state(task)?.champion;
            return champion.ok_or_else(|| self.nothing(task, "promoted model"));
        }
        let mut fitting = self.versions(task)?;
        fitting.retain(|id| !version.is_empty() && id.starts_with(version));
        match fitting.as_slice() {
            [one] => Ok(one.clone()),
            _ => Err(none()),
        }
    }

    /// A version's manifest, checked against its id.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn manifest(&self, task: &str, version: &str) -> Result<Manifest, ModelError> {
        let path = self.folder(task, version).join("manifest.json");
        let bytes = read(&path, SMALL_BYTES_MAX)?;
        if id_of(&bytes) != version {
            return Err(stored(&path, "manifest", "its SHA-256 is not that of the version".to_owned()));
        }
        serde_json::from_slice(&bytes).map_err(|error| stored(&path, "manifest", error.to_string()))
    }

    /// A version's model, checked against its manifest.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn model(&self, task: &str, version: &str) -> Result<Model, ModelError> {
        let manifest = self.manifest(task, version)?;
        let path = self.folder(task, version).join("model.bin");
        let bytes = self.listed(&manifest, &path, "model.bin", BYTES_MAX as u64)?;
        let model = Model::from_bytes(&bytes).map_err(|why| stored(&path, "model", why))?;
        if model.task == task {
            Ok(model)
        } else {
            Err(stored(&path, "model", format!("it is of task {:?}", model.task)))
        }
    }

    /// A text of a version, such as `card.md`.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn text(&self, task: &str, version: &str, name: &str) -> Result<String, ModelError> {
        let manifest = self.manifest(task, version)?;
        let path = self.folder(task, version).join(name);
        let bytes = self.listed(&manifest, &path, name, SMALL_BYTES_MAX)?;
        String::from_utf8(bytes).map_err(|error| stored(&path, "text", error.to_string()))
    }

    /// Predicts the stored probe again.
    ///
    /// # Errors
    /// A bit differs, or the version is damaged.
    pub fn check_probe(&self, task: &str, version: &str) -> Result<usize, ModelError> {
        let model = self.model(task, version)?;
        let path = self.folder(task, version).join("probe.json");
        let text = self.text(task, version, "probe.json")?;
        let probe: Probe = serde_json::from_str(&text).map_err(|error| stored(&path, "probe", error.to_string()))?;
        let width = model.ensemble.encoder.names().len();
        let differs =
            |at: usize| stored(&path, "probe", format!("row {at} is predicted otherwise than when it was stored"));
        if let Some(at) = probe.rows.iter().position(|row| row.len() != width) {
            return Err(differs(at));
        }
        // All at once, which is quicker; what a row gets does not depend on the others.
        let values = probe.rows.iter().flatten().map(|&bits| f32::from_bits(bits)).collect();
        let matrix = Matrix { kinds: vec![ColumnKind::Ordered; width], values, rows: probe.rows.len() };
        let predicted = model.probabilities(&matrix, 1);
        match predicted.iter().zip(&probe.probabilities).position(|(is, wanted)| is.to_bits() != *wanted) {
            Some(at) => Err(differs(at)),
            None => Ok(probe.rows.len()),
        }
    }

    /// Takes the right to write, and removes what killed writers left.
    ///
    /// # Errors
    /// Another process has it.
    pub fn lock(&self, task: &str) -> Result<Lock, ModelError> {
        let folder = self.root.join(task);
        fs::create_dir_all(folder.join("versions")).map_err(ModelError::io("create", &folder))?;
        let path = folder.join("lock");
        let file = File::create(&path).map_err(ModelError::io("create", &path))?;
        if file.try_lock().is_err() {
            return Err(ModelError::Locked { path });
        }
        for name in names_in(&folder.join("versions"))?.into_iter().filter(|name| name.starts_with('.')) {
            let left = folder.join("versions").join(name);
            fs::remove_dir_all(&left).map_err(ModelError::io("remove", &left))?;
        }
        Ok(Lock { _file: file })
    }

    /// Adds a version with its files; one that is there already is left as it is.
    ///
    /// # Errors
    /// Something cannot be written; then nothing was added.
    pub fn add(
        &self,
        _lock: &Lock,
        mut manifest: Manifest,
        mut files: Vec<(String, Vec<u8>)>,
    ) -> Result<String, ModelError> {
        files.sort();
        manifest.files = files.iter().map(|(name, bytes)| (name.clone(), hex(&Sha256::digest(bytes)))).collect();
        let folder = self.root.join(&manifest.task).join("versions");
        let bytes =
            serde_json::to_vec_pretty(&manifest).map_err(|error| stored(&folder, "manifest", error.to_string()))?;
        let id = id_of(&bytes);
        let place = folder.join(&id);
        if place.exists() {
            return Ok(id);
        }
        files.push(("manifest.json".to_owned(), bytes));
        let beside = folder.join(format!(".{id}"));
        fs::create_dir(&beside).map_err(ModelError::io("create", &beside))?;
        for (name, bytes) in &files {
            write_synced(&beside.join(name), bytes)?;
        }
        sync_folder(&beside)?;
        fs::rename(&beside, &place).map_err(ModelError::io("rename", &beside))?;
        sync_folder(&folder)?;
        self.change(&manifest.task, |state| state.happened.push(happening("added", &id, "trained")))?;
        Ok(id)
    }

    /// Makes a version the one that predicts, after its probe was predicted again.
    ///
    /// # Errors
    /// The version is damaged or not there.
    pub fn promote(&self, _lock: &Lock, task: &str, version: &str, why: &str) -> Result<(), ModelError> {
        self.check_probe(task, version)?;
        self.change(task, |state| {
            if state.champion.as_deref() == Some(version) {
                return;
            }
            state.before.extend(state.champion.take());
            state.champion = Some(version.to_owned());
            state.challenger.take_if(|challenger| challenger == version);
            state.happened.push(happening("promoted", version, why));
        })
    }

    /// Lets a version be compared with the champion, after its probe was predicted again; `None` ends it.
    ///
    /// # Errors
    /// The version is damaged or not there, or is the champion.
    pub fn challenge(&self, _lock: &Lock, task: &str, version: Option<&str>, why: &str) -> Result<(), ModelError> {
        if let Some(version) = version {
            self.check_probe(task, version)?;
            if self.state(task)?.champion.as_deref() == Some(version) {
                return Err(ModelError::setting(format!("challenger {version}"), "it is the champion"));
            }
        }
        self.change(task, |state| {
            let before = state.challenger.take();
            state.challenger = version.map(str::to_owned);
            let (what, of) = match (version, before) {
                (Some(version), _) => ("challenges", version.to_owned()),
                (None, Some(before)) => ("challenges no more", before),
                (None, None) => return,
            };
            state.happened.push(happening(what, &of, why));
        })
    }

    /// Goes back to the version that predicted before; returns it.
    ///
    /// # Errors
    /// There is none, or it is damaged.
    pub fn roll_back(&self, _lock: &Lock, task: &str, why: &str) -> Result<String, ModelError> {
        let Some(version) = self.state(task)?.before.pop() else { return Err(self.nothing(task, "model from before")) };
        self.check_probe(task, &version)?;
        self.change(task, |state| {
            state.before.pop();
            state.champion = Some(version.clone());
            state.happened.push(happening("rolled back", &version, why));
        })?;
        Ok(version)
    }

    fn change(&self, task: &str, change: impl FnOnce(&mut State)) -> Result<(), ModelError> {
        let mut state = self.state(task)?;
        change(&mut state);
        let folder = self.root.join(task);
        let (path, beside) = (folder.join("state.json"), folder.join(".state.json"));
        let bytes = serde_json::to_vec_pretty(&state).map_err(|error| stored(&path, "state", error.to_string()))?;
        write_synced(&beside, &bytes)?;
        fs::rename(&beside, &path).map_err(ModelError::io("rename", &beside))?;
        sync_folder(&folder)
    }

    /// The bytes of a file of a version, as the manifest has them.
    fn listed(&self, manifest: &Manifest, path: &Path, name: &str, most: u64) -> Result<Vec<u8>, ModelError> {
        let wanted = manifest.files.iter().find(|(file, _)| file == name).map(|(_, sha256)| sha256);
        let Some(wanted) = wanted else { return Err(stored(path, "file", "the manifest does not list it".to_owned())) };
        let bytes = read(path, most)?;
        if hex(&Sha256::digest(&bytes)) == *wanted {
            Ok(bytes)
        } else {
            Err(stored(path, "file", "its SHA-256 is not that of the manifest".to_owned()))
        }
    }

    fn folder(&self, task: &str, version: &str) -> PathBuf {
        self.root.join(task).join("versions").join(version)
    }

    fn nothing(&self, task: &str, what: &'static str) -> ModelError {
        ModelError::NoModel { task: task.to_owned(), what, path: self.root.clone() }
    }
}

impl Probe {
    /// Predicts rows and keeps the answers.
    #[must_use]
    pub fn of(model: &Model, matrix: &Matrix) -> Probe {
        let rows = (0..matrix.rows).map(|row| matrix.row(row));
        Probe {
            rows: rows.clone().map(|row| row.iter().map(|cell| cell.to_bits()).collect()).collect(),
            probabilities: rows.map(|row| model.probability(row).to_bits()).collect(),
        }
    }
}

fn happening(what: &str, version: &str, why: &str) -> Happening {
    Happening { at: cf_types::clock::now(), what: what.to_owned(), version: version.to_owned(), why: why.to_owned() }
}

fn id_of(manifest: &[u8]) -> String {
    let mut id = hex(&Sha256::digest(manifest));
    id.truncate(ID_LETTERS);
    id
}

fn is_id(name: &str) -> bool {
    name.len() == ID_LETTERS && name.bytes().all(|b| b.is_ascii_hexdigit())
}

fn stored(path: &Path, what: &'static str, why: String) -> ModelError {
    ModelError::Stored { path: path.to_owned(), what, why }
}

fn names_in(folder: &Path) -> Result<Vec<String>, ModelError> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(ModelError::io("read", folder))? {
        let entry = entry.map_err(ModelError::io("read", folder))?;
        names.extend(entry.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

fn read(path: &Path, most: u64) -> Result<Vec<u8>, ModelError> {
    let size = fs::metadata(path).map_err(ModelError::io("read", path))?.len();
    if size > most {
        return Err(stored(path, "file", format!("it has {size} bytes, {most} are allowed")));
    }
    fs::read(path).map_err(ModelError::io("read", path))
}

fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let mut file = File::create(path).map_err(ModelError::io("create", path))?;
    file.write_all(bytes).map_err(ModelError::io("write", path))?;
    file.sync_all().map_err(ModelError::io("sync", path))
}

fn sync_folder(path: &Path) -> Result<(), ModelError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(ModelError::io("sync", path))
}
