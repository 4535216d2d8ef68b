#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use super::*;

fn blob(fill: u8, length: usize) -> (BlobId, Vec<u8>) {
    let bytes = vec![fill; length];
    (BlobId(*blake3::hash(&bytes).as_bytes()), bytes)
}

fn put(store: &BlobStore, fill: u8, length: usize) -> BlobId {
    let (id, bytes) = blob(fill, length);
    store.put(&id, &bytes).unwrap();
    id
}

#[test]
fn what_is_put_is_got_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let id = put(&BlobStore::open(dir.path(), 100).unwrap(), 1, 10);
    let store = BlobStore::open(dir.path(), 100).unwrap();
    assert_eq!(store.get(&id).unwrap().bytes(), vec![1; 10]);
    assert_eq!(store.len_bytes(), 10);
    put(&store, 1, 10);
    assert_eq!(store.len_bytes(), 10, "the same blob counts once");
    assert!(store.get(&blob(2, 10).0).is_none());
}

#[test]
fn at_the_limit_all_stays_and_one_byte_more_drops_the_longest_unused() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), 100).unwrap();
    let (first, second) = (put(&store, 1, 50), put(&store, 2, 50));
    assert!(store.get(&second).is_some() && store.get(&first).is_some());
    let third = put(&store, 3, 1);
    assert!(store.get(&second).is_none(), "used before the first");
    assert!(store.get(&first).is_some() && store.get(&third).is_some());
    assert_eq!(store.len_bytes(), 51);
}

#[test]
fn a_lower_limit_holds_from_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), 100).unwrap();
    let (first, second) = (put(&store, 1, 50), put(&store, 2, 50));
    let store = BlobStore::open(dir.path(), 99).unwrap();
    assert!(store.get(&first).is_none() && store.get(&second).is_some());
}

#[test]
fn what_does_not_belong_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(dir.path(), 100).unwrap();
    let (id, bytes) = blob(1, 101);
    assert_eq!(store.put(&id, &bytes).unwrap_err().kind(), io::ErrorKind::StorageFull);
    let wrong = store.put(&id, &bytes[1..]).unwrap_err();
    assert_eq!(wrong.kind(), io::ErrorKind::InvalidInput);
    assert!(store.get(&id).is_none());
    put(&store, 1, 100);
}

#[test]
fn corruption_is_a_missing_blob() {
    for junk in [&b""[..], b"short", &[9; 50], &[9; 5000]] {
        let dir = tempfile::tempdir().unwrap();
        let store = BlobStore::open(dir.path(), 100).unwrap();
        let id = put(&store, 1, 50);
        fs::write(store.path(&id), junk).unwrap();
        assert!(store.get(&id).is_none());
        assert!(!store.path(&id).exists());
        put(&store, 1, 50);
        assert!(store.get(&id).is_some());
    }
}

#[test]
fn what_is_large_goes_through_a_file_and_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let (small, large) = (MAPPED_MIN - 1, MAPPED_MIN);
    let store = BlobStore::open(dir.path(), large).unwrap();
    assert!(store.receive(small).is_none(), "held in memory");
    assert!(store.receive(large + 1).is_none(), "more than the whole store");
    let (id, bytes) = blob(1, usize::try_from(large).unwrap());
    let mut file = store.receive(large).unwrap();
    file.write_all(&bytes).unwrap();
    assert!(store.get(&id).is_none(), "not before it is kept");
    let kept = store.keep(&id, file).unwrap();
    let found = BlobStore::open(dir.path(), large).unwrap().get(&id).unwrap();
    for found in [kept, found] {
        assert!(matches!(&found, Found::File(_)));
        assert_eq!(found.bytes(), bytes);
    }
    let mapped = store.get(&id).unwrap();
    put(&store, 2, 10);
    assert!(store.get(&id).is_none(), "dropped for the other, which was used later");
    assert_eq!(mapped.bytes(), bytes, "who has it keeps it");
    assert_eq!(store.len_bytes(), 10);
}

#[test]
fn many_may_put_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let stores = [100_000, 100_000].map(|max| BlobStore::open(dir.path(), max).unwrap());
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let store = &stores[worker % 2];
            // Every blob is put by several, and more are put than there is room for.
            scope.spawn(move || {
                for fill in 0..100 {
                    put(store, fill, 2000);
                }
            });
        }
    });
    let store = BlobStore::open(dir.path(), 100_000).unwrap();
    let left = (0..100).filter(|fill| store.get(&blob(*fill, 2000).0).is_some()).count();
    assert!((1..=50).contains(&left), "{left} blobs");
    assert_eq!(store.len_bytes(), left as u64 * 2000);
    assert_eq!(fs::read_dir(dir.path().join(ASIDE)).unwrap().count(), 0);
}

#[test]
fn the_library_looks_everywhere() {
    let dir = tempfile::tempdir().unwrap();
    let store = Arc::new(BlobStore::open(dir.path(), 100).unwrap());
    let stored = put(&store, 1, 10);
    let library = Library::new(Some(store));
    let (provided, bytes) = blob(2, 10);
    let held = library.insert(Bytes::from(vec![3; 10])).unwrap();
    let provider =
        library.provide(Arc::new(move |id| (*id == provided).then(|| bytes.clone().into())));
    for (id, fill) in [(stored, 1), (provided, 2), (held, 3)] {
        assert_eq!(library.blob(&id).unwrap(), vec![fill; 10]);
    }
    library.withdraw(provider);
    library.remove(&held);
    assert!(library.blob(&provided).is_none() && library.blob(&held).is_none());
    assert!(library.blob(&stored).is_some());
}

#[test]
fn memory_is_bounded() {
    let library = Library::default();
    for number in 0..MEMORY_BLOBS_MAX as u64 {
        assert!(library.insert(Bytes::copy_from_slice(&number.to_le_bytes())).is_some());
    }
    assert!(library.insert(Bytes::from_static(b"one more")).is_none());
    assert!(library.insert(Bytes::copy_from_slice(&0u64.to_le_bytes())).is_some(), "held already");
}
