//! Thousands of short lives of clients, writers and a database, each driven by
//! one number: what was acknowledged counts exactly once, whatever happens.
//!
//! Everything but the core is modelled: a clock, a database that keeps the
//! rules of the SQL, the commit worker's way with unknown outcomes, clients
//! that lose answers and send again. `AMMETER_SIMULATION_SEED` repeats one
//! schedule, `AMMETER_SIMULATION_SCHEDULES` changes how many are run.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that unwraps nothing fails, as it should"
)]

#[path = "simulation/database.rs"]
mod database;
#[path = "engine/sample.rs"]
#[expect(dead_code, reason = "made for the other tests, too")]
mod sample;
#[path = "simulation/world.rs"]
mod world;

use std::hash::{BuildHasher, RandomState};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use world::World;

const SCHEDULES: u64 = 20_000;
const STEPS: usize = 60;
const THREADS: u64 = 2;

/// `SplitMix64`: a schedule is a function of its seed.
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).unwrap()
    }

    /// True in `percent` of a hundred cases.
    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}

fn run(seed: u64) -> [u64; 4] {
    let mut world = World::new(Rng(seed));
    for _ in 0..STEPS {
        world.step();
    }
    world.settle();
    world.figures()
}

fn run_many(seeds: impl Iterator<Item = u64>) -> [u64; 4] {
    let mut sums = [0; 4];
    for seed in seeds {
        let figures = catch_unwind(AssertUnwindSafe(|| run(seed)))
            .unwrap_or_else(|_| panic!("repeat this schedule with AMMETER_SIMULATION_SEED={seed}"));
        for (sum, figure) in sums.iter_mut().zip(figures) {
            *sum += figure;
        }
    }
    sums
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_schedule_counts_once_what_it_acknowledged() {
    if let Some(seed) = number("AMMETER_SIMULATION_SEED") {
        run(seed);
        return;
    }
    let started = Instant::now();
    let count = number("AMMETER_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let base = RandomState::new().hash_one(count);
    let part = |thread: u64| run_many((thread..count).step_by(2).map(move |n| base.wrapping_add(n)));
    let sums = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| scope.spawn(move || part(thread)))
            .collect();
        let sums = threads.into_iter().map(|thread| thread.join().unwrap());
        sums.reduce(|a, b| std::array::from_fn(|i| a[i] + b[i])).unwrap()
    });
    let [events, recoveries, fenced, unknown] = sums;
    println!(
        "{count} schedules in {:.1} s: {events} events, {recoveries} recoveries, {fenced} writers fenced, \
         {unknown} commits of unknown outcome; 0 lost, 0 doubled",
        started.elapsed().as_secs_f64()
    );
    assert!(
        count < 1000 || sums.iter().all(|&sum| sum > count / 20),
        "too little happened: {sums:?}"
    );
}
