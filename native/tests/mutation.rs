//! More than two hundred thousand damaged inputs for everything that reads bytes. The
//! same every time, unless `AMMETER_MUTATION_SEED` says otherwise.
#![expect(
    clippy::unwrap_used,
    reason = "a test that unwraps nothing fails, as it should"
)]

#[path = "engine/sample.rs"]
#[expect(dead_code, reason = "made for the other tests, too")]
mod sample;
#[path = "mutation/targets.rs"]
mod targets;

use std::fs;
use std::path::Path;

use _native::segment::{compress, put_event};
use sample::{NOW, TENANT, event, request};

const INPUTS: usize = 66_000;
/// Each is written to a file, or four.
const FILES: usize = 10_000;

struct Rng(u64);

impl Rng {
    fn new(salt: u64) -> Self {
        let seed = std::env::var("AMMETER_MUTATION_SEED").map_or(1, |text| text.parse().unwrap());
        Self((salt << 32 | seed).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 11) % limit as u64).unwrap()
    }

    fn byte(&mut self) -> u8 {
        [0, 1, 2, 0x0a, 0x7f, 0x80, 0xff, self.below(256).to_le_bytes()[0]][self.below(8)]
    }
}

/// One to four changes: bytes set, put in, taken out, repeated, or from another.
fn mutate(rng: &mut Rng, corpus: &[Vec<u8>]) -> Vec<u8> {
    let mut data = corpus[rng.below(corpus.len())].clone();
    for _ in 0..=rng.below(4) {
        let at = rng.below(data.len() + 1);
        let length = rng.below(9).min(data.len() - at);
        match rng.below(6) {
            0 => data.insert(at, rng.byte()),
            1 => drop(data.drain(at..at + length)),
            2 => {
                let piece = data[at..at + length].to_vec();
                data.splice(at..at, piece);
            }
            3 => {
                let other = &corpus[rng.below(corpus.len())];
                let from = rng.below(other.len() + 1);
                data.truncate(at);
                data.extend_from_slice(&other[from..]);
            }
            _ if at < data.len() => data[at] = rng.byte(),
            _ => {}
        }
    }
    data
}

/// Feeds a target the inputs and those that a fuzzer found, and as many damaged ones. With a
/// directory in `AMMETER_MUTATION_CORPUS` the inputs are left there for a fuzzer to begin with.
fn run(name: &str, salt: u64, mut corpus: Vec<Vec<u8>>, inputs: usize, target: fn(&[u8])) {
    let mut rng = Rng::new(salt);
    let found = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/mutation/found")
        .join(name);
    for file in fs::read_dir(found).into_iter().flatten() {
        corpus.push(fs::read(file.unwrap().path()).unwrap());
    }
    if let Some(directory) = std::env::var_os("AMMETER_MUTATION_CORPUS") {
        let directory = Path::new(&directory).join(name);
        fs::create_dir_all(&directory).unwrap();
        for (number, input) in corpus.iter().enumerate() {
            fs::write(directory.join(format!("seed-{number}")), input).unwrap();
        }
    }
    let corpus = &corpus[..];
    for input in corpus {
        target(input);
    }
    for _ in 0..inputs {
        let data = mutate(&mut rng, corpus);
        if std::panic::catch_unwind(|| target(&data)).is_err() {
            use std::fmt::Write as _;
            let hex = data.iter().fold(String::new(), |mut hex, byte| {
                write!(hex, "{byte:02x}").unwrap();
                hex
            });
            panic!("this input breaks it: {hex}");
        }
    }
}

fn requests() -> Vec<Vec<u8>> {
    let samples = [
        event(1),
        event(2).at(None),
        event("drei").with("n", "-12.000000000001").with("model", ""),
        event(4).without("n").with("m\u{f6}del", "\u{1F600}"),
    ];
    let mut all: Vec<_> = samples
        .iter()
        .map(|one| request(std::slice::from_ref(one)))
        .collect();
    all.push(request(&samples));
    all.push(request(&[event(1), event(1), event(1).with("n", "6")]));
    all
}

#[test]
fn damaged_requests() {
    run("request", 1, requests(), INPUTS, targets::request);
}

#[test]
fn damaged_payloads() {
    let mut raw = Vec::new();
    for one in [event(1), event(2), event(3).with("n", "0.5").with("model", "x")] {
        put_event(&mut raw, &one.encode(), &[]);
    }
    let corpus: Vec<_> = (0..3_u8)
        .map(|codec| {
            let length = u32::try_from(raw.len()).unwrap().to_be_bytes();
            [&[codec], &length[1..], &stored(codec, &raw)].concat()
        })
        .collect();
    run("payload", 2, corpus, INPUTS, targets::payload);
}

#[test]
fn damaged_blocks() {
    let engine = targets::engine();
    let values = ["1", "0.000000000001", "99999999999999999999999999"];
    for (number, value) in (0..20).zip(values.into_iter().cycle()) {
        let one = event(number).at(NOW - number * 61_000_000).with("n", value);
        engine.admit(TENANT, &request(&[one]), NOW).unwrap();
    }
    let sealed = engine.seal(NOW).unwrap().unwrap();
    engine.fold(&sealed).unwrap();
    let corpus: Vec<_> = engine
        .freeze()
        .blocks
        .iter()
        .map(|block| block.payload.clone())
        .collect();
    assert!(corpus.len() >= targets::AGGREGATIONS.len());
    run("block", 3, corpus, INPUTS, targets::block);
}

/// Rows of one segment, and packs of one to three.
#[test]
fn damaged_rows() {
    let segments: Vec<(u8, Vec<u8>)> = (0..4_u8)
        .map(|count| {
            let mut raw = Vec::new();
            for number in 0..count {
                put_event(&mut raw, &event(number).encode(), &[]);
            }
            (count, raw)
        })
        .collect();
    let mut corpus = Vec::new();
    for codec in 0..3 {
        for (number, (count, raw)) in segments.iter().enumerate() {
            let length = u32::try_from(raw.len()).unwrap().to_le_bytes();
            corpus.push([&[codec, 0, *count], &length[..3], &stored(codec, raw)].concat());
            let mut pack = vec![codec, number.to_le_bytes()[0], 0, 0, 0, 0];
            for (count, raw) in &segments[..number] {
                pack.extend_from_slice(&u32::from(*count).to_le_bytes());
                pack.extend_from_slice(&u32::try_from(raw.len()).unwrap().to_le_bytes());
                pack.extend_from_slice(&NOW.to_le_bytes());
                pack.resize(pack.len() + 32, 0);
            }
            let all: Vec<u8> = segments[..number]
                .iter()
                .flat_map(|(_, raw)| raw.clone())
                .collect();
            corpus.push([pack, stored(codec, &all)].concat());
        }
    }
    run("row", 4, corpus, INPUTS, targets::row);
}

/// Without its checksum.
fn stored(codec: u8, raw: &[u8]) -> Vec<u8> {
    let mut stored = compress(codec, raw).unwrap();
    stored.truncate(stored.len() - if codec == 0 { 0 } else { 4 });
    stored
}

#[test]
fn damaged_files_of_identities() {
    run(
        "identities",
        5,
        targets::files_of_identities(),
        FILES,
        targets::identities,
    );
}
