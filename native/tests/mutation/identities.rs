//! Files of identities.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use _native::engine::{Engine, Settings};
use _native::error::Reason;
use _native::identity::RunFiles;

use super::{DAY, KEY, NOW, TENANT, meters, settings};

const TRAILER: usize = 144;
const SLOT: usize = 24;
const BLOCK: usize = 256;
const FENCE: usize = 20;
/// Magic, and which hashes it was made with.
const OWNER: usize = 32;
/// An engine's memory of a file, per byte of it, and for what is there without one.
const TIMES: u64 = 8;
const BESIDES: u64 = 8 << 20;

/// A directory, gone with this.
pub struct Place(PathBuf);

impl Place {
    /// An empty one, in memory if there is such a place.
    pub fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let memory = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        let parent = if memory.is_dir() { memory } else { &temporary };
        let path = parent.join(format!("ammeter-mutation-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn engine(&self) -> Engine {
        let run_files = Some(RunFiles {
            directory: self.0.clone(),
            hot_us: DAY,
            sync: false,
        });
        let engine = Engine::new(
            &KEY,
            Settings {
                run_files,
                ..settings()
            },
        )
        .unwrap();
        engine.open_tenant(TENANT, 0, [0; 32]);
        engine.put_meter(TENANT, meters().remove(0)).unwrap();
        engine
    }

    fn file(&self, from: u64, to: u64) -> PathBuf {
        self.0.join(format!("{TENANT:08x}-{from:016x}-{to:016x}.run"))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A file that has the identities of a request.
pub fn file_of(request: &[u8]) -> Vec<u8> {
    let place = Place::new();
    let engine = place.engine();
    engine.admit(TENANT, request, NOW).unwrap();
    engine.fold(&engine.seal(NOW).unwrap().unwrap()).unwrap();
    let mut draft = engine.save_identities(TENANT, 1).unwrap().unwrap();
    assert!(engine.place_run(&mut draft).unwrap());
    fs::read(place.file(0, 1)).unwrap()
}

/// How to put right what was changed (bits of the first byte), then a file. A start with it, look-ups
/// in it, moving out, and merging it with others end, if not well then with an error that says that
/// it is damaged.
pub fn identities(data: &[u8], owner: &[u8], request: &[u8]) {
    let Some((how, data)) = data.split_first() else {
        return;
    };
    let place = Place::new();
    // As many as are merged into one, or one.
    let files = if how & 1 == 0 { 1 } else { 4 };
    for from in 0..files {
        let mut file = data.to_vec();
        put_right(*how, &mut file, owner, from);
        fs::write(place.file(from, from + 1), &file).unwrap();
    }
    let later = NOW + if how & 2 == 0 { 0 } else { 3 * DAY };
    // Twice: the second start finds what the first one left.
    for _ in 0..2 {
        let engine = place.engine();
        let known = engine.stored_runs(TENANT).unwrap().len();
        assert!(known as u64 <= files);
        engine.load_runs(TENANT, known, 0, later).unwrap();
        for error in [
            engine.admit(TENANT, request, later).err(),
            engine.move_out_identities(TENANT, later).err(),
            engine.admit(TENANT, request, later).err(),
            engine.merge_runs(TENANT, later).err(),
            engine.expire_runs(TENANT, later).err(),
        ]
        .into_iter()
        .flatten()
        {
            assert_eq!(error.reason, Reason::DamagedRun, "{error:?}");
        }
        let stats = engine.stats();
        let bytes = stats.identity_bytes as u64 + stats.old_identity_bytes;
        assert!(bytes <= BESIDES + TIMES * files * data.len() as u64, "{stats:?}");
    }
}

/// Makes checksums fit, and the trailer that of a file of this place: what is behind them is reached.
fn put_right(how: u8, file: &mut [u8], owner: &[u8], from: u64) {
    let Some(trailer) = file.len().checked_sub(TRAILER).filter(|_| how & 4 == 0) else {
        return;
    };
    let number = |file: &[u8], at: usize| {
        file[at..]
            .first_chunk()
            .map_or(0, |bytes| u64::from_le_bytes(*bytes))
    };
    let mut count = usize::try_from(number(file, trailer + 64)).unwrap_or(usize::MAX) % (trailer / SLOT + 1);
    while count * SLOT + count.div_ceil(BLOCK) * FENCE > trailer {
        count -= 1;
    }
    let (slots, rest) = file.split_at_mut(count * SLOT);
    let (fences, rest) = rest.split_at_mut(count.div_ceil(BLOCK) * FENCE);
    let (filters, trailer) = rest.split_at_mut(rest.len() - TRAILER);
    for (block, fence) in slots.chunks(BLOCK * SLOT).zip(fences.chunks_mut(FENCE)) {
        fence[16..].copy_from_slice(&crc32fast::hash(block).to_le_bytes());
    }
    let filter_bytes = filters.len();
    if let Some((head, filter)) = filters.split_first_chunk_mut::<8>() {
        put_filter_right(how, filter);
        let length = u32::try_from(filter.len()).unwrap_or(u32::MAX);
        head[..4].copy_from_slice(&length.to_le_bytes());
        head[4..].copy_from_slice(&crc32fast::hash(filter).to_le_bytes());
    }
    trailer[..OWNER].copy_from_slice(&owner[..OWNER]);
    let numbers = [
        (32, u64::from(TENANT)),
        (40, from),
        (48, from + 1),
        (64, count as u64),
        (72, filter_bytes as u64),
    ];
    for (at, number) in numbers {
        trailer[at..at + 8].copy_from_slice(&number.to_le_bytes());
    }
    trailer[120..124].copy_from_slice(&crc32fast::hash(fences).to_le_bytes());
    let checksum = crc32fast::hash(&trailer[..TRAILER - 4]);
    trailer[TRAILER - 4..].copy_from_slice(&checksum.to_le_bytes());
}

/// As many places as it says, of segments of any length.
fn put_filter_right(how: u8, filter: &mut [u8]) {
    let Some(places) = filter.len().checked_sub(16).map(|bytes| bytes / 2) else {
        return;
    };
    if how & 8 != 0 {
        let length = 1_u32 << (filter[8] % 16);
        let span = u32::try_from(places)
            .unwrap_or(u32::MAX)
            .saturating_sub(2 * length);
        filter[8..12].copy_from_slice(&length.to_le_bytes());
        filter[12..16].copy_from_slice(&span.to_le_bytes());
    }
}
