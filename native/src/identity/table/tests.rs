//! The table against a map.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

fn spread(seed: u64) -> Identity {
    // SplitMix64: as even as the real hash.
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    Identity {
        high: mix(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        low: seed,
    }
}

#[test]
fn a_million_identities_take_at_most_thirty_two_bytes_each() {
    let mut table = IdentityTable::default();
    for seed in 0..1_000_000 {
        assert_eq!(
            table.insert(spread(seed), Content::new(seed), Day(20_000)),
            Seen::New
        );
        if seed > 100_000 && seed % 10_000 == 0 {
            let bytes = table.bytes();
            assert!(bytes <= 32 * table.len(), "{bytes} at {seed}");
        }
    }
    for seed in 0..1_000_000 {
        assert_eq!(
            table.insert(spread(seed), Content::new(9), Day(1)),
            Seen::Before(Content::new(seed)),
            "{seed}"
        );
    }
    assert_eq!(table.len(), 1_000_000);
}

#[test]
fn expiry_drops_older_days_only() {
    let mut table = IdentityTable::default();
    for seed in 0..10_000 {
        let day = Day(if seed % 3 == 0 { 100 } else { 101 });
        table.insert(spread(seed), Content::new(seed), day);
    }
    let dropped: usize = (0..SHARDS)
        .filter_map(|shard| table.expire_shard(shard, Day(101)))
        .sum();
    assert_eq!((dropped, table.len()), (3334, 6666));
    for seed in 0..10_000 {
        let seen = table.insert(spread(seed), Content::new(seed), Day(101));
        assert_eq!(seen == Seen::New, seed % 3 == 0);
    }
}

#[test]
fn what_is_loaded_in_order_is_found_and_grows_on() {
    let mut slots: Vec<Slot> = (0..300_000)
        .map(|seed| Slot::new(spread(seed), Content::new(seed), Day(9)))
        .collect();
    slots.sort_unstable_by_key(|slot| slot.identity);
    let given = slots.into_iter().map(Ok::<_, ()>);
    let mut table = IdentityTable::load(300_000, given).unwrap();
    assert_eq!((table.len(), table.unsaved()), (300_000, 0));
    assert!(table.bytes() <= 32 * table.len());
    for seed in 0..600_000 {
        let known = seed < 300_000;
        let seen = table.insert(spread(seed), Content::new(seed), Day(9));
        assert_eq!(seen != Seen::New, known, "{seed}");
    }
    assert_eq!((table.len(), table.unsaved()), (600_000, 300_000));
}

#[test]
fn saving_takes_each_once_and_moving_out_takes_what_is_saved() {
    let mut table = IdentityTable::default();
    let save = |table: &mut IdentityTable| -> Vec<Slot> {
        (0..SHARDS)
            .filter_map(|shard| table.save_shard(shard))
            .flatten()
            .collect()
    };
    for seed in 0..1000 {
        table.insert(spread(seed), Content::new(seed), Day(5));
    }
    let first = save(&mut table);
    assert_eq!(first.len(), 1000);
    assert!(first.is_sorted_by_key(|slot| slot.identity));
    for seed in 1000..1500 {
        table.insert(spread(seed), Content::new(seed), Day(5));
    }
    let moved: usize = (0..SHARDS)
        .filter_map(|shard| table.evict_shard(shard, Day(6)))
        .sum();
    assert_eq!((moved, table.len(), table.unsaved()), (1000, 500, 500));
    assert_eq!(save(&mut table).len(), 500);
    table.unsave();
    assert_eq!((table.unsaved(), save(&mut table).len()), (500, 500));
}

#[test]
fn what_came_again_after_it_was_forgotten_counts_from_its_later_day() {
    let mut table = IdentityTable::default();
    table.insert(spread(1), Content::new(1), Day(5));
    for (content, day) in [(2, 50), (1, 5)] {
        table.remember_all(&[Slot::new(spread(1), Content::new(content), Day(day))]);
    }
    let expired: usize = (0..SHARDS)
        .filter_map(|shard| table.expire_shard(shard, Day(6)))
        .sum();
    assert_eq!(expired, 0);
    let seen = table.insert(spread(1), Content::new(2), Day(50));
    assert_eq!(seen, Seen::Before(Content::new(2)));
}

#[test]
fn what_is_remembered_in_heaps_is_there_for_whoever_asks() {
    let slots: Vec<Slot> = (0..3_000_000)
        .map(|seed| Slot::new(spread(seed), Content::new(seed), Day(9)))
        .collect();
    let mut table = IdentityTable::default();
    for some in slots.chunks(100_000) {
        table.remember_all(some);
    }
    table.remember_all(&slots[..1000]);
    table.settle();
    assert_eq!((table.len(), table.unsaved()), (3_000_000, 3_000_000));
    assert!(table.bytes() <= 32 * table.len(), "{}", table.bytes());
    for slot in slots.iter().step_by(97) {
        assert_eq!(
            table.insert(slot.identity, Content::new(1), Day(9)),
            Seen::Before(slot.content())
        );
    }
}

proptest! {
    #[test]
    fn heaps_are_sorted_in_as_if_one_by_one(
        steps in prop::collection::vec((0..400_u64, 0..3_u64, 1..6_u16, 0..4_usize), 0..600)
    ) {
        let mut table = IdentityTable::default();
        let mut model: HashMap<u64, Slot> = HashMap::new();
        for (seed, content, day, kind) in steps {
            // All in one shard, so that heaps grow beside what is sorted in.
            let identity = Identity { high: spread(seed).high >> SHARD_BITS, low: seed };
            let slot = Slot::new(identity, Content::new(content), Day(day));
            match kind {
                0 => {
                    let before = model.get(&seed).map(|slot| slot.content());
                    let seen = table.insert(identity, slot.content(), Day(day));
                    prop_assert_eq!(seen, before.map_or(Seen::New, Seen::Before));
                    model.entry(seed).or_insert(slot);
                }
                1 => table.settle(),
                _ => {
                    table.remember_all(&[slot]);
                    let before = model.entry(seed).or_insert(slot);
                    if before.day() < slot.day() {
                        *before = slot;
                    }
                }
            }
        }
        table.settle();
        let mut found: Vec<Slot> = table.save_shard(0).unwrap_or_default();
        let mut wanted: Vec<Slot> = model.into_values().collect();
        found.sort_unstable_by_key(|slot| slot.identity);
        wanted.sort_unstable_by_key(|slot| slot.identity);
        prop_assert_eq!(found, wanted);
    }

    #[test]
    fn behaves_like_a_map(
        // Few and extreme hashes: long runs, equal high halves, full tails.
        keys in prop::collection::vec((prop::sample::select(vec![0, 1, 1 << 57, u64::MAX - 1, u64::MAX]), 0..40_u64), 0..300)
    ) {
        let mut table = IdentityTable::default();
        let mut model = HashMap::new();
        for (i, (high, low)) in (0..).zip(keys) {
            let seen = table.insert(Identity { high, low }, Content::new(i), Day(7));
            if let Some(first) = model.get(&(high, low)).copied() {
                prop_assert_eq!(seen, Seen::Before(Content::new(first)));
            } else {
                prop_assert_eq!(seen, Seen::New);
                model.insert((high, low), i);
            }
        }
        prop_assert_eq!(table.len(), model.len());
    }
}
