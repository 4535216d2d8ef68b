//! Blobs on this machine: a cache on disk, and what is at hand in memory. Both answer by content,
//! so it never matters where a blob came from.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use starling_engine::Mapped;
use starling_protocol::BlobId;
use tempfile::NamedTempFile;

use crate::net::blobs::BlobSource;

/// A directory of blobs, `<2 hex>/<62 hex>` by their blake3, that stays within a limit by dropping
/// what was used the longest ago. Several processes may share one: files appear whole (by renaming)
/// and are verified whenever they are read, so all that the others can cause is a blob that is
/// missing. When something was used is the file's modification time, which they share too.
#[derive(Debug)]
pub(crate) struct BlobStore {
    dir: PathBuf,
    bytes_max: u64,
    /// As far as this process knows; counted anew before anything is dropped.
    bytes: AtomicU64,
    /// Held while the directory is counted and files are dropped.
    sweep: Mutex<()>,
}

/// A blob that was found: in memory, or in a file that is mapped into it.
#[derive(Clone)]
pub(crate) enum Found {
    Memory(Bytes),
    File(Mapped),
}

impl Found {
    /// The blob.
    pub(crate) fn bytes(&self) -> Bytes {
        match self {
            Found::Memory(bytes) => bytes.clone(),
            Found::File(mapped) => mapped.bytes(),
        }
    }
}

impl BlobStore {
    /// The store in `dir`, which is made if it is missing, and brought within the limit.
    ///
    /// # Errors
    /// If the directory can't be made or read.
    pub(crate) fn open(dir: &Path, bytes_max: u64) -> io::Result<Self> {
        fs::create_dir_all(dir.join(ASIDE))?;
        let (dir, bytes, sweep) = (dir.to_owned(), AtomicU64::new(0), Mutex::new(()));
        let store = Self { dir, bytes_max, bytes, sweep };
        store.drop_leftovers();
        store.shrink()?;
        Ok(store)
    }

    /// The blob, if it is here whole. A file with other bytes in it is dropped.
    pub(crate) fn get(&self, id: &BlobId) -> Option<Found> {
        let path = self.path(id);
        let found = match read(&path) {
            Ok(found) => found,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!(path = %path.display(), %error, "can't read a stored blob");
                return None;
            }
        };
        let bytes = found.bytes();
        if blake3::hash(&bytes) != id.0 {
            tracing::warn!(path = %path.display(), "a stored blob is corrupt, dropping it");
            self.remove(&path, bytes.len() as u64);
            return None;
        }
        if let Found::File(mapped) = &found {
            mapped.release(&bytes);
        }
        touch(&path);
        Some(found)
    }

    /// A file for a blob of so many bytes to be written to, which [`keep`](Self::keep) then puts
    /// in its place; nothing if it is to be held in memory instead, since it is small or more than
    /// the store takes.
    pub(crate) fn receive(&self, length: u64) -> Option<NamedTempFile> {
        if !(MAPPED_MIN..=self.bytes_max).contains(&length) {
            return None;
        }
        let file = NamedTempFile::new_in(self.dir.join(ASIDE));
        file.inspect_err(|error| tracing::warn!(%error, "can't keep blobs on disk")).ok()
    }

    /// Keeps a blob that was written to a file, dropping others if there is no room. The caller
    /// has made sure that it is this blob.
    ///
    /// # Errors
    /// If it can't be mapped or put in its place.
    pub(crate) fn keep(&self, id: &BlobId, file: NamedTempFile) -> io::Result<Found> {
        let mapped = Mapped::open(file.as_file())?;
        self.place(&self.path(id), file, mapped.as_ref().len() as u64)?;
        Ok(Found::File(mapped))
    }

    /// Keeps a blob, dropping others if there is no room.
    ///
    /// # Errors
    /// If the bytes aren't the blob's, are more than the whole store takes, or can't be written.
    pub(crate) fn put(&self, id: &BlobId, bytes: &[u8]) -> io::Result<()> {
        if blake3::hash(bytes) != id.0 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "bytes of another blob"));
        }
        let length = bytes.len() as u64;
        if length > self.bytes_max {
            return Err(io::Error::new(io::ErrorKind::StorageFull, "larger than the whole store"));
        }
        let path = self.path(id);
        if fs::metadata(&path).is_ok_and(|there| there.len() == length) {
            touch(&path);
            return Ok(());
        }
        let mut file = NamedTempFile::new_in(self.dir.join(ASIDE))?;
        file.write_all(bytes)?;
        self.place(&path, file, length)
    }

    fn place(&self, path: &Path, file: NamedTempFile, length: u64) -> io::Result<()> {
        fs::create_dir_all(path.parent().expect("it has a directory for its first byte"))?;
        file.persist(path).map_err(|error| error.error)?;
        touch(path);
        if self.bytes.fetch_add(length, Ordering::SeqCst) + length > self.bytes_max {
            self.shrink()?;
        }
        Ok(())
    }

    /// How much is stored, as far as this process knows.
    #[cfg(test)]
    pub(crate) fn len_bytes(&self) -> u64 {
        self.bytes.load(Ordering::SeqCst)
    }

    fn path(&self, id: &BlobId) -> PathBuf {
        let hex = blake3::Hash::from_bytes(id.0).to_hex();
        self.dir.join(&hex[..2]).join(&hex[2..])
    }

    fn remove(&self, path: &Path, length: u64) {
        if fs::remove_file(path).is_ok() {
            let less = |bytes: u64| Some(bytes.saturating_sub(length));
            let _ = self.bytes.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
        }
    }

    /// Counts what is there, and drops the longest unused until the rest is within the limit.
    fn shrink(&self) -> io::Result<()> {
        let _sweep = self.sweep.lock().unwrap_or_else(PoisonError::into_inner);
        let mut files = self.files()?;
        let mut bytes: u64 = files.iter().map(|file| file.length).sum();
        files.sort_by_key(|file| file.used);
        for file in files {
            if bytes <= self.bytes_max {
                break;
            }
            // Another process may have dropped it first, which is just as well.
            match fs::remove_file(&file.path) {
                Ok(()) => bytes -= file.length,
                Err(error) if error.kind() == io::ErrorKind::NotFound => bytes -= file.length,
                Err(error) => {
                    tracing::warn!(path = %file.path.display(), %error, "can't drop a blob");
                }
            }
        }
        self.bytes.store(bytes, Ordering::SeqCst);
        Ok(())
    }

    fn files(&self) -> io::Result<Vec<Stored>> {
        let mut files = Vec::new();
        for shelf in fs::read_dir(&self.dir)?.flatten() {
            if shelf.file_name().len() != 2 {
                continue;
            }
            // Another process may be busy here: what vanishes under our eyes is not there.
            let Ok(shelf) = fs::read_dir(shelf.path()) else { continue };
            for entry in shelf.flatten() {
                if let Ok(metadata) = entry.metadata()
                    && metadata.is_file()
                    && let Ok(used) = metadata.modified()
                {
                    files.push(Stored { path: entry.path(), length: metadata.len(), used });
                }
            }
        }
        Ok(files)
    }

    /// Half-written files of processes that died. Young ones may be of a process that lives.
    fn drop_leftovers(&self) {
        let Ok(aside) = fs::read_dir(self.dir.join(ASIDE)) else { return };
        for entry in aside.flatten() {
            let old = entry.metadata().and_then(|metadata| metadata.modified());
            if old.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > LEFTOVER_AGE)) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

#[derive(Debug)]
struct Stored {
    path: PathBuf,
    length: u64,
    used: SystemTime,
}

/// Everything that this node can give to others: blobs held in memory (graph slices), providers
/// (an open model's own file), and the store on disk, asked in this order.
#[derive(Default)]
pub(crate) struct Library {
    memory: RwLock<Memory>,
    providers: RwLock<Vec<(ProviderId, Provider)>>,
    next: AtomicU64,
    store: Option<Arc<BlobStore>>,
}

/// Gives blobs that are somewhere else already.
pub(crate) type Provider = Arc<dyn Fn(&BlobId) -> Option<Bytes> + Send + Sync>;

/// Names a registered provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ProviderId(u64);

#[derive(Default)]
struct Memory {
    blobs: HashMap<BlobId, Bytes>,
    bytes: u64,
}

impl Library {
    /// An empty library over a store, if there is one.
    pub(crate) fn new(store: Option<Arc<BlobStore>>) -> Self {
        Self { store, ..Self::default() }
    }

    /// Keeps a blob in memory until it is removed. Its name is returned; nothing if it doesn't fit.
    pub(crate) fn insert(&self, bytes: Bytes) -> Option<BlobId> {
        let id = BlobId(*blake3::hash(&bytes).as_bytes());
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        if memory.blobs.contains_key(&id) {
            return Some(id);
        }
        let total = memory.bytes + bytes.len() as u64;
        if total > MEMORY_BYTES_MAX || memory.blobs.len() >= MEMORY_BLOBS_MAX {
            return None;
        }
        memory.bytes = total;
        memory.blobs.insert(id, bytes);
        Some(id)
    }

    /// Forgets a blob that was held in memory.
    pub(crate) fn remove(&self, id: &BlobId) {
        let mut memory = self.memory.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = memory.blobs.remove(id) {
            memory.bytes -= bytes.len() as u64;
        }
    }

    /// Asks `provider` too, until it is withdrawn.
    pub(crate) fn provide(&self, provider: Provider) -> ProviderId {
        let id = ProviderId(self.next.fetch_add(1, Ordering::Relaxed));
        let mut providers = self.providers.write().unwrap_or_else(PoisonError::into_inner);
        providers.push((id, provider));
        id
    }

    /// No longer asks a provider.
    pub(crate) fn withdraw(&self, id: ProviderId) {
        let mut providers = self.providers.write().unwrap_or_else(PoisonError::into_inner);
        providers.retain(|(other, _)| *other != id);
    }

    /// The store on disk.
    pub(crate) fn store(&self) -> Option<&Arc<BlobStore>> {
        self.store.as_ref()
    }

    /// The blob, wherever it is.
    pub(crate) fn find(&self, id: &BlobId) -> Option<Found> {
        let held = {
            let memory = self.memory.read().unwrap_or_else(PoisonError::into_inner);
            memory.blobs.get(id).cloned()
        };
        let at_hand = held.or_else(|| self.provided(id)).map(Found::Memory);
        at_hand.or_else(|| self.store.as_ref()?.get(id))
    }

    fn provided(&self, id: &BlobId) -> Option<Bytes> {
        // Not under the lock: a provider may read a file.
        let providers: Vec<Provider> = {
            let providers = self.providers.read().unwrap_or_else(PoisonError::into_inner);
            providers.iter().map(|(_, provider)| provider.clone()).collect()
        };
        providers.iter().find_map(|provider| provider(id))
    }
}

impl BlobSource for Library {
    fn blob(&self, id: &BlobId) -> Option<Bytes> {
        self.find(id).map(|found| found.bytes())
    }
}

/// What a file holds, mapped if it is large.
fn read(path: &Path) -> io::Result<Found> {
    let mut file = fs::File::open(path)?;
    if file.metadata()?.len() >= MAPPED_MIN {
        return Mapped::open(&file).map(Found::File);
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    Ok(Found::Memory(Bytes::from(bytes)))
}

/// Marks a file as just used. If that fails, it is merely dropped earlier.
fn touch(path: &Path) {
    if let Ok(file) = fs::File::options().append(true).open(path) {
        let _ = file.set_modified(SystemTime::now());
    }
}

/// Where files are written before they are renamed; not two characters, so never taken for blobs.
const ASIDE: &str = "aside";
/// Blobs of at least so many bytes are mapped and not read.
const MAPPED_MIN: u64 = 1 << 20;
const LEFTOVER_AGE: Duration = Duration::from_secs(3600);
const MEMORY_BYTES_MAX: u64 = 256 << 20;
const MEMORY_BLOBS_MAX: usize = 4096;

#[cfg(test)]
mod tests;
