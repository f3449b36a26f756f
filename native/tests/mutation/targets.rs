//! What hostile bytes are fed to; shared with `native/fuzz`. A target panics
//! when something is wrong, and only then.

mod identities;
mod rows;

use std::sync::{Arc, OnceLock};

use _native::builder::MeterBuilder;
use _native::engine::{Engine, Settings};
use _native::meter::{Aggregation, MeterSpec, minute_of};
use _native::pack::Stored;
use _native::replay::Replay;
use _native::scan::Search;
use _native::segment::{decompress, event_slices, read_stored};
use _native::windows::{QueryRequest, merge_blocks};
use _native::wire::{Reader, Value, put_bytes, put_text};
use sha2::{Digest as _, Sha256};

const NOW: i64 = 1_790_000_000_000_000;
const DAY: i64 = 86_400_000_000;
const TENANT: u32 = 1;
const KEY: [u8; 16] = *b"sixteen secrets!";

/// A segment's payload may claim to be greater, but is not decompressed here.
const MAX_RAW_BYTES: usize = 1 << 20;

pub use rows::row;

pub const AGGREGATIONS: [Aggregation; 7] = [
    Aggregation::Count,
    Aggregation::Sum,
    Aggregation::Min,
    Aggregation::Max,
    Aggregation::Avg,
    Aggregation::UniqueCount,
    Aggregation::Latest,
];

/// A meter of each aggregation, numbered from 1.
pub fn meters() -> Vec<Arc<MeterSpec>> {
    let spec = |(id, aggregation)| {
        Arc::new(MeterSpec {
            id,
            key: format!("m{id}"),
            event_type: "llm".into(),
            aggregation,
            value_property: if aggregation == Aggregation::Count {
                String::new()
            } else {
                "n".into()
            },
            dimensions: vec!["model".into()],
            filters: vec![],
        })
    };
    (1..).zip(AGGREGATIONS).map(spec).collect()
}

pub fn settings() -> Settings {
    Settings {
        horizon_past_us: 35 * DAY,
        horizon_future_us: 300_000_000,
        max_pending_bytes: 1 << 30,
        codec: 1,
        run_files: None,
    }
}

pub fn engine() -> Engine {
    let engine = Engine::new(&KEY, settings()).unwrap();
    engine.open_tenant(TENANT, 0, [0; 32]);
    for meter in meters() {
        engine.put_meter(TENANT, meter).unwrap();
    }
    engine
}

/// A request: each of its events gets one verdict, what is accepted can be
/// read back and is known the second time.
pub fn request(body: &[u8]) {
    let engine = engine();
    let Ok(receipt) = engine.admit(TENANT, body, NOW) else {
        return;
    };
    let sent = count_events(body);
    let verdicts = receipt.accepted + receipt.duplicates + receipt.conflicts + receipt.rejected;
    assert_eq!(verdicts, sent, "not one verdict for each event");
    let _answer = receipt.encode(1);
    let again = engine.admit(TENANT, body, NOW).unwrap();
    assert_eq!((again.accepted, again.rejected), (0, receipt.rejected));
    assert_eq!(
        receipt.group > 0,
        receipt.accepted + receipt.duplicates + receipt.conflicts > 0
    );
    let Some(sealed) = engine.seal(NOW).unwrap() else {
        assert_eq!(receipt.accepted, 0);
        return;
    };
    let segment = &sealed.segments[0];
    assert_eq!(segment.header.event_count, receipt.accepted);
    assert_eq!(segment.verify(), Ok(segment.digest));
    engine.fold(&sealed).unwrap();
    let second = self::engine();
    second
        .replay(&Replay {
            tenant: TENANT,
            rows: &[segment.row()],
            upto: 1,
            known: 0,
            fold: true,
            now_us: NOW,
        })
        .unwrap();
    let blocks = |engine: &Engine| engine.freeze().blocks;
    assert_eq!(
        blocks(&engine),
        blocks(&second),
        "replay counts otherwise than ingest"
    );
}

fn count_events(body: &[u8]) -> u32 {
    let mut reader = Reader::new(body);
    let mut count = 0;
    while let Some((number, value)) = reader.field().unwrap() {
        count += u32::from(number == 1 && matches!(value, Value::Bytes(_)));
    }
    count
}

/// A segment's payload: codec, claimed length, then what is stored, its
/// checksum put right.
pub fn payload(data: &[u8]) {
    let Some((head, stored)) = data.split_first_chunk::<4>() else {
        return;
    };
    let codec = head[0] % 4;
    let raw_bytes = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
    let raw_bytes = raw_bytes.min(MAX_RAW_BYTES);
    let mut stored = stored.to_vec();
    if codec != 0 {
        let checksum = crc32fast::hash(&stored);
        stored.extend_from_slice(&checksum.to_le_bytes());
    }
    let Ok(raw) = decompress(codec, &stored, raw_bytes) else {
        return;
    };
    assert_eq!(raw.len(), raw_bytes);
    let readable = event_slices(&raw).is_ok_and(|slices| {
        (0..)
            .zip(slices)
            .all(|(index, bytes)| read_stored(&mut _native::event::Event::default(), bytes, index).is_ok())
    });
    let row = Stored {
        position: 1,
        codec,
        payload: &stored,
        raw_bytes,
        parts: &[],
    };
    for meter in meters() {
        let mut builder = MeterBuilder::new(&KEY, TENANT, meter);
        let added = builder.add(&row, 1);
        assert_eq!(added.is_ok(), readable, "{added:?}");
        for block in builder.take_blocks() {
            merge_blocks(TENANT, block.meter, block.day, &[&block.payload]).unwrap();
        }
    }
    let all = Search {
        from_us: i64::MIN,
        to_us: i64::MAX,
        event_type: "",
        subject: "",
        event_id: "",
        source: "",
        before: (u64::MAX, 0),
        limit: 100,
    };
    drop(engine().scan(TENANT, &row, &all));
}

/// A block, its checksum put right: what can be merged can be merged again.
pub fn block(data: &[u8]) {
    if data.len() < 40 {
        return;
    }
    let mut data = data.to_vec();
    let digest = Sha256::new().chain_update(&data[..32]).chain_update(&data[40..]);
    data[32..40].copy_from_slice(&digest.finalize()[..8]);
    let word = |at: usize| u32::from_le_bytes([data[at], data[at + 1], data[at + 2], data[at + 3]]);
    let (tenant, meter, day) = (word(12), word(16), i32::from_le_bytes(word(20).to_le_bytes()));
    // The same twice, so that rows are read and merged, too.
    if let Ok(merged) = merge_blocks(tenant, meter, day, &[&data, &data]) {
        let payloads: Vec<&[u8]> = merged.iter().map(|block| &block.payload[..]).collect();
        merge_blocks(tenant, meter, day, &payloads).unwrap();
    }
    let asked = QueryRequest {
        meter,
        boundaries: vec![
            minute_of(NOW - 40 * DAY),
            minute_of(NOW),
            minute_of(NOW + 40 * DAY),
        ],
        group_by: vec!["model".into(), "subject".into()],
        filters: vec![],
        subjects: vec![],
        customers: vec![],
        page: None,
    };
    drop(engine().query(TENANT, &asked, &[&data], 0));
}

/// A request of so many events, each with an id of its own.
fn few_events(count: u32) -> Vec<u8> {
    let mut body = Vec::new();
    for number in 0..count {
        let mut event = Vec::new();
        put_text(&mut event, 1, number.to_string().as_bytes());
        for (field, text) in [(2, "gateway"), (3, "llm"), (4, "user")] {
            put_text(&mut event, field, text.as_bytes());
        }
        put_bytes(&mut body, 1, &event);
    }
    body
}

/// Files of identities, good ones: of a block, and of two.
pub fn files_of_identities() -> Vec<Vec<u8>> {
    let files = [2, 300].map(|count| identities::file_of(&few_events(count)));
    (0..16)
        .flat_map(|how| files.iter().map(move |file| [&[how], &file[..]].concat()))
        .collect()
}

/// A file of identities: see there.
pub fn identities(data: &[u8]) {
    static SAMPLE: OnceLock<(Vec<u8>, Vec<u8>)> = OnceLock::new();
    let (owner, request) = SAMPLE.get_or_init(|| {
        let file = identities::file_of(&few_events(1));
        (file[file.len() - 144..].to_vec(), few_events(40))
    });
    identities::identities(data, owner, request);
}
