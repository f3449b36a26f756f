//! Many identities, a tenth of them a day: memory, files, look-ups, a restart.
//! `cargo bench --bench history -- 100` for a hundred million; 10 if not said.
#![expect(clippy::unwrap_used, reason = "a bench that fails says where")]
#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "figures to be looked at"
)]

use std::fs;
use std::time::Instant;

use _native::engine::{Engine, Settings};
use _native::identity::RunFiles;
use _native::response::Receipt;
use _native::wire::{put_bytes, put_text};

const DAY: i64 = 86_400_000_000;
const NOW: i64 = 1_790_000_000_000_000;
const PER_REQUEST: u64 = 10_000;
const DAYS: u64 = 10;

fn request(first: u64, count: u64) -> Vec<u8> {
    let mut body = Vec::new();
    for number in first..first + count {
        let mut event = Vec::new();
        put_text(&mut event, 1, format!("{number:016x}").as_bytes());
        put_text(&mut event, 2, b"s");
        put_text(&mut event, 3, b"t");
        put_text(&mut event, 4, b"u");
        put_bytes(&mut body, 1, &event);
    }
    body
}

fn resident_mib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() >> 10
}

fn begin(directory: &str) -> Engine {
    let run_files = RunFiles {
        directory: directory.into(),
        hot_us: DAY,
        sync: true,
    };
    let settings = Settings {
        horizon_past_us: 35 * DAY,
        horizon_future_us: 300_000_000,
        max_pending_bytes: 1 << 40,
        codec: 0,
        run_files: Some(run_files),
    };
    let engine = Engine::new(&[7; 16], settings).unwrap();
    engine.open_tenant(1, 0, [0; 32]);
    engine
}

fn tell(what: &str, engine: &Engine) {
    let stats = engine.stats();
    println!(
        "{what}: {} in memory at {:.1} B, {} in {} files at {:.2} B, resident {} MiB",
        stats.identities,
        stats.identity_bytes as f64 / stats.identities.max(1) as f64,
        stats.old_identities,
        stats.identity_runs,
        stats.old_identity_bytes as f64 / stats.old_identities.max(1) as f64,
        resident_mib()
    );
}

/// Sends what may be known or not; says how long an event took.
fn ask(what: &str, engine: &Engine, firsts: impl Iterator<Item = u64>, now_us: i64) -> Receipt {
    let bodies: Vec<_> = firsts.map(|first| request(first, 1000)).collect();
    let started = Instant::now();
    let receipts: Vec<_> = bodies
        .iter()
        .map(|body| engine.admit(1, body, now_us).unwrap())
        .collect();
    let rate = bodies.len() as f64 * 1000.0 / started.elapsed().as_secs_f64();
    println!("{what}: {rate:.0} events/s");
    receipts.into_iter().last().unwrap()
}

fn main() {
    let millions = std::env::args().find_map(|text| text.parse().ok());
    let count = millions.unwrap_or(10_u64) * 1_000_000;
    let directory = std::env::temp_dir().join(format!("ammeter-history-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let place = directory.to_str().unwrap();
    let engine = begin(place);
    let started = Instant::now();
    let (mut head, mut now_us) = ((0, [0; 32]), NOW);
    for day in 0..DAYS {
        now_us = NOW + i64::try_from(day).unwrap() * DAY;
        for first in (day * count / DAYS..(day + 1) * count / DAYS).step_by(PER_REQUEST as usize) {
            engine.admit(1, &request(first, PER_REQUEST), now_us).unwrap();
            let group = engine.seal(now_us).unwrap().unwrap();
            engine.fold(&group).unwrap();
            head = (group.segments[0].header.position, group.segments[0].digest);
        }
        let mut draft = engine.save_identities(1, 1).unwrap().unwrap();
        assert!(engine.place_run(&mut draft).unwrap());
        while engine.merge_runs(1, now_us).unwrap() {}
        engine.move_out_identities(1, now_us).unwrap();
        println!("day {day}: {:.0} s", started.elapsed().as_secs_f64());
    }
    tell("at the end", &engine);
    let fresh = ask("new", &engine, (0..200).map(|n| count + n * 1000), now_us);
    assert_eq!(fresh.accepted, 1000);
    let spread = |n: u64| n.wrapping_mul(7_919_000) % (count * 8 / 10) / 1000 * 1000;
    let known = ask("duplicates of old ones", &engine, (0..100).map(spread), now_us);
    assert_eq!(known.duplicates, 1000);
    let oldest = engine.admit(1, &request(0, 1000), now_us).unwrap();
    assert_eq!(oldest.duplicates, 1000);
    drop(engine);

    let started = Instant::now();
    let engine = begin(place);
    let files = engine.stored_runs(1).unwrap();
    assert_eq!(files.last().unwrap().digest, head.1);
    assert_eq!(engine.load_runs(1, files.len(), 0, now_us).unwrap(), head.0);
    println!("restart from files: {:.2} s", started.elapsed().as_secs_f64());
    tell("after it", &engine);
    let oldest = engine.admit(1, &request(0, 1000), now_us).unwrap();
    assert_eq!(oldest.duplicates, 1000);
    let bytes: u64 = fs::read_dir(&directory)
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum();
    println!("files: {:.1} B per identity", bytes as f64 / count as f64);
    fs::remove_dir_all(&directory).unwrap();
}
