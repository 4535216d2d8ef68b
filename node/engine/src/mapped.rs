//! Files of weights in memory: their pages come when they are read, and go when they are packed.

use std::fs::File;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use memmap2::Mmap;

/// A file, mapped to be read only. Cheap to clone.
#[derive(Clone)]
pub struct Mapped(Arc<Mmap>);

impl Mapped {
    /// Maps a file, which must not change from then on: replace it by renaming another over it, or
    /// remove it, both of which leave the mapped one alone.
    ///
    /// # Errors
    /// When the system can't map it.
    pub fn open(file: &File) -> io::Result<Self> {
        #[expect(unsafe_code, reason = "mapping is how weights are read without copying the file")]
        // SAFETY: the file is mapped read-only, and the caller keeps others from changing it.
        let map = unsafe { Mmap::map(file) }?;
        Ok(Self(Arc::new(map)))
    }

    /// All of the file.
    #[must_use]
    pub fn bytes(&self) -> Bytes {
        Bytes::from_owner(self.clone())
    }

    /// Lets go of the memory that these bytes of the file take. Who reads them again gets them
    /// from the system's cache, or from the file; bytes of anything else are left alone.
    pub fn release(&self, bytes: &[u8]) {
        let start = (bytes.as_ptr() as usize).checked_sub(self.0.as_ptr() as usize);
        let Some(start) = start.filter(|start| start + bytes.len() <= self.0.len()) else { return };
        let first = start.next_multiple_of(PAGES);
        let end = (start + bytes.len()) / PAGES * PAGES;
        if first < end {
            self.forget(first, end);
        }
    }

    #[cfg(unix)]
    fn forget(&self, first: usize, end: usize) {
        let advice = memmap2::UncheckedAdvice::DontNeed;
        #[expect(unsafe_code, reason = "it is for anonymous memory that this advice is not safe")]
        // SAFETY: the pages are the file's, unchanged, so reading them again gives the same bytes.
        let advised = unsafe { self.0.unchecked_advise_range(advice, first, end - first) };
        // Memory that is not released is no error.
        advised.unwrap_or_default();
    }

    #[cfg(not(unix))]
    fn forget(&self, _first: usize, _end: usize) {}
}

impl AsRef<[u8]> for Mapped {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A multiple of every system's page.
const PAGES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn released_bytes_are_read_again() {
        let mut file = tempfile::tempfile().unwrap();
        let content: Vec<u8> = (0..5 * PAGES).map(|i| (i % 251) as u8).collect();
        file.write_all(&content).unwrap();
        let mapped = Mapped::open(&file).unwrap();
        let bytes = mapped.bytes();
        assert_eq!(bytes, content);
        for part in [0..content.len(), 100..3 * PAGES, PAGES..2 * PAGES, 7..9, 0..0] {
            mapped.release(&bytes[part.clone()]);
            assert_eq!(bytes, content, "{part:?}");
        }
        // Bytes of others stay as they are: releasing them would be losing them.
        let other = vec![7u8; 4 * PAGES];
        mapped.release(&other);
        assert!(other.iter().all(|&byte| byte == 7));
    }
}
