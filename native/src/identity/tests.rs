//! Files: what is written is found; what is damaged is refused, never wrong.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::run::{Probe, Run};
use super::store::{list, path_of, unfinished};
use super::write::{Cover, Writer, merged};
use super::{Day, Slot};
use crate::error::{EngineError, Reason};
use crate::hash::{Content, Identity};

/// A directory of one test's own, gone with it.
struct Place(PathBuf);

impl Place {
    fn new() -> Self {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("ammeter-runs-{}-{number}", std::process::id());
        let memory = Path::new("/dev/shm");
        let temporary = std::env::temp_dir();
        let path = if memory.is_dir() { memory } else { &temporary }.join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn probe() -> Probe {
    (Identity { high: 1, low: 2 }, Content::new(3))
}

fn many(numbers: impl Iterator<Item = u64>, day: u16) -> Vec<Slot> {
    let spread = |n: u64| Identity {
        high: (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
        low: n,
    };
    let mut slots: Vec<Slot> = numbers
        .map(|n| Slot::new(spread(n), Content::new(n), Day(day)))
        .collect();
    slots.sort_unstable_by_key(|slot| slot.identity);
    slots
}

fn write(directory: &Path, slots: &[Slot], from: u64, to: u64) -> Run {
    let path = path_of(directory, 7, from, to);
    let mut writer = Writer::create(unfinished(&path), false).unwrap();
    for slot in slots {
        writer.push(*slot).unwrap();
    }
    writer.end_slots().unwrap();
    let cover = Cover {
        tenant: 7,
        from,
        to,
        position: to + 1,
        digest: [5; 32],
    };
    writer.place(&path, cover, probe()).unwrap()
}

fn read(run: &Run) -> Result<Vec<Slot>, EngineError> {
    run.slots().collect()
}

#[test]
fn every_slot_is_found_and_nothing_else() {
    let place = Place::new();
    // More than one section.
    let slots = many(0..700_000, 20_000);
    let run = write(&place.0, &slots, 0, 9);
    assert_eq!(read(&run).unwrap(), slots);
    let filters = run.filters().unwrap();
    assert_eq!(filters.len(), 2);
    for slot in slots.iter().step_by(997) {
        assert_eq!(run.find(slot.identity).unwrap(), Some(*slot));
    }
    for slot in &slots {
        let section = run.section(slot.identity).unwrap();
        assert!(filters[section].may_hold(slot.identity.low));
    }
    for absent in many(700_000..701_000, 1) {
        assert_eq!(run.find(absent.identity).unwrap(), None);
    }
}

#[test]
fn memory_per_old_identity_is_less_than_two_and_a_half_bytes() {
    let place = Place::new();
    let slots = many(0..3_000_000, 20_000);
    let run = write(&place.0, &slots, 0, 9);
    let filters = run.filters().unwrap();
    let bytes = run.bytes() + filters.iter().map(super::filter::Filter::bytes).sum::<usize>();
    assert!(bytes * 10 < slots.len() * 25, "{bytes} for {}", slots.len());
}

#[test]
fn no_flipped_byte_and_no_missing_end_goes_unseen() {
    let place = Place::new();
    let slots = many(0..300, 20_000);
    let path = write(&place.0, &slots, 0, 9).path;
    let whole = fs::read(&path).unwrap();
    let judge = |bytes: &[u8]| -> Result<Vec<Slot>, EngineError> {
        fs::write(&path, bytes).unwrap();
        let run = Run::open(&path, probe())?;
        run.filters()?;
        read(&run)
    };
    assert_eq!(judge(&whole).unwrap(), slots);
    for at in 0..whole.len() {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let found = judge(&bytes).map(|_| at);
        assert_eq!(found.unwrap_err().reason, Reason::DamagedRun, "byte {at}");
    }
    for length in (0..whole.len()).step_by(13) {
        assert_eq!(judge(&whole[..length]).unwrap_err().reason, Reason::DamagedRun);
    }
    fs::write(&path, &whole).unwrap();
    let other = (probe().0, Content::new(4));
    assert_eq!(Run::open(&path, other).unwrap_err().reason, Reason::DamagedRun);
}

#[test]
fn a_look_up_in_a_damaged_block_is_an_error_and_no_answer() {
    let place = Place::new();
    let slots = many(0..600, 20_000);
    let run = write(&place.0, &slots, 0, 9);
    let mut bytes = fs::read(&run.path).unwrap();
    bytes[300 * 24] ^= 1;
    fs::write(&run.path, bytes).unwrap();
    assert_eq!(run.find(slots[0].identity).unwrap(), Some(slots[0]));
    let error = run.find(slots[300].identity).unwrap_err();
    assert_eq!(error.reason, Reason::DamagedRun);
}

#[test]
fn what_belongs_together_is_kept_and_the_rest_removed() {
    let place = Place::new();
    let some = many(0..10, 20_000);
    for (from, to) in [(0, 5), (5, 9), (0, 9), (9, 12), (13, 20)] {
        write(&place.0, &some, from, to);
    }
    let other = place.0.join("00000008-0000000000000000-0000000000000005.run");
    fs::write(&other, b"of another tenant").unwrap();
    fs::write(
        place.0.join("00000007-0000000000000014-0000000000000019.new"),
        b"half",
    )
    .unwrap();
    let spans = |found: Vec<(PathBuf, super::run::Meta)>| -> Vec<(u64, u64)> {
        found.iter().map(|(_, meta)| (meta.from, meta.to)).collect()
    };
    assert_eq!(spans(list(&place.0, 7, probe())), [(0, 9), (9, 12)]);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 3);
    fs::copy(path_of(&place.0, 7, 0, 9), path_of(&place.0, 7, 12, 21)).unwrap();
    assert_eq!(spans(list(&place.0, 7, probe())), [(0, 9), (9, 12)]);
}

#[test]
fn a_run_that_was_begun_and_not_placed_leaves_nothing() {
    let place = Place::new();
    let path = path_of(&place.0, 7, 0, 5);
    let mut writer = Writer::create(unfinished(&path), false).unwrap();
    writer.push(many(0..1, 1)[0]).unwrap();
    drop(writer);
    assert_eq!(fs::read_dir(&place.0).unwrap().count(), 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn merging_is_the_union_with_the_later_day(
        parts in prop::collection::vec(prop::collection::btree_map(0..2000_u64, 1..100_u16, 0..400), 1..5)
    ) {
        let place = Place::new();
        let mut model = std::collections::BTreeMap::new();
        let mut runs = Vec::new();
        for (number, part) in (0..).zip(&parts) {
            let mut slots: Vec<Slot> = part.iter().flat_map(|(n, day)| many(*n..=*n, *day)).collect();
            slots.sort_unstable_by_key(|slot| slot.identity);
            for slot in &slots {
                let kept = model.entry(slot.identity).or_insert(*slot);
                if kept.day() < slot.day() {
                    *kept = *slot;
                }
            }
            runs.push(write(&place.0, &slots, number, number + 1));
        }
        let runs: Vec<&Run> = runs.iter().collect();
        let found: Vec<Slot> = merged(&runs).collect::<Result<_, _>>().unwrap();
        prop_assert_eq!(found, model.into_values().collect::<Vec<_>>());
    }
}
