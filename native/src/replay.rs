//! Recovery: durable rows are taken back in order.
//!
//! Rows are read side by side by several threads: each is proven against the
//! digest stored before it, which the row before is proven to have. What they
//! held is merged in order.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use crate::engine::Engine;
use crate::error::{EngineError, Reason};
use crate::event::Event;
use crate::find::{Finder, Observed};
use crate::group::Tenant;
use crate::hash::Hasher;
use crate::identity::{Day, Slot};
use crate::meter::Point;
use crate::observe::{MeterSet, Observation, push_key};
use crate::pack::{Piece, Row};
use crate::segment::{Digest, corrupt, read_stored};
use crate::windows::Windows;

/// Threads that read rows, at most.
const READERS: usize = 4;
/// Observations whose groups are looked up together.
const CHUNK: usize = 128;
/// Bytes, decompressed, that are read sooner than a thread is started.
const WORTH_THREADS: u64 = 1 << 20;

/// Stored rows and what to do with them.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// Whose.
    pub tenant: u32,
    /// Neighbours, oldest first.
    pub rows: &'a [Row<'a>],
    /// Segments after this one are left; those that were taken back are, too.
    pub upto: u64,
    /// Identities of segments up to this one are known.
    pub known: u64,
    /// Merge into partials.
    pub fold: bool,
    /// Identities that are too old by now are not remembered.
    pub now_us: i64,
}

/// What a segment holds, before it is merged.
#[derive(Default)]
struct Replayed {
    position: u64,
    digest: Digest,
    events: u64,
    identities: Vec<Slot>,
    observed: Vec<Observed>,
    /// Of each observation, the event's: its time and its number in the segment.
    events_of: Vec<(i64, u32)>,
    keys: Vec<u8>,
}

/// How to read rows, and after which segment.
struct Reading<'a> {
    replay: &'a Replay<'a>,
    hasher: &'a Hasher,
    meters: &'a MeterSet,
    oldest: Day,
    head: u64,
    digest: Digest,
}

impl Engine {
    /// Takes back durable rows; returns how many events they had that were
    /// not taken back before.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`; `POSITION_GAP` if they do not follow what was taken
    /// back or events are pending; `CORRUPT` if they do not verify. What came
    /// before the fault is taken back then.
    pub fn replay(&self, replay: &Replay<'_>) -> Result<u64, EngineError> {
        let (head, digest, meters) = {
            let mut state = self.state.lock();
            let tenant = state.tenant(replay.tenant)?;
            if tenant.pending > 0 {
                let message = format!("nothing can be replayed while {} are pending", tenant.pending);
                return Err(EngineError::new(Reason::PositionGap, message));
            }
            (tenant.head, tenant.digest, tenant.meters.clone())
        };
        let reading = Reading {
            replay,
            hasher: &self.hasher.clone(),
            meters: &meters,
            oldest: self.oldest_identity(replay.now_us),
            head,
            digest,
        };
        let mut events = 0;
        let mut take = |read: Result<Vec<Replayed>, EngineError>| {
            let mut state = self.state.lock();
            let tenant = state.tenant(replay.tenant)?;
            for segment in read? {
                if segment.position != tenant.head + 1 {
                    let message = format!("position {} does not follow {}", segment.position, tenant.head);
                    return Err(EngineError::new(Reason::PositionGap, message));
                }
                events += segment.events;
                segment.merge(tenant, replay.fold);
            }
            Ok(())
        };
        let bytes: u64 = replay
            .rows
            .iter()
            .map(|row| u64::from(row.header.raw_bytes))
            .sum();
        if bytes < WORTH_THREADS {
            (0..replay.rows.len()).try_for_each(|at| take(reading.read(at)))?;
        } else {
            reading.read_side_by_side(take)?;
        }
        Ok(events)
    }

    /// Sorts in what replaying left in heaps; whoever comes first would do it
    /// otherwise.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`.
    pub fn settle_identities(&self, tenant: u32) -> Result<(), EngineError> {
        self.state.lock().tenant(tenant)?.identities.settle();
        Ok(())
    }
}

impl Reading<'_> {
    fn read_side_by_side(
        &self,
        mut take: impl FnMut(Result<Vec<Replayed>, EngineError>) -> Result<(), EngineError>,
    ) -> Result<(), EngineError> {
        let next = AtomicUsize::new(0);
        let count = self.replay.rows.len();
        let threads = thread::available_parallelism().map_or(1, usize::from);
        thread::scope(|scope| {
            let (sender, receiver) = channel();
            for _ in 0..threads.min(READERS).min(count) {
                let (sender, next) = (sender.clone(), &next);
                scope.spawn(move || {
                    loop {
                        let at = next.fetch_add(1, Ordering::Relaxed);
                        // Nobody listens any more after a fault.
                        if at >= count || sender.send((at, self.read(at))).is_err() {
                            return;
                        }
                    }
                });
            }
            drop(sender);
            let mut early = BTreeMap::new();
            let mut taken = 0;
            for (at, read) in receiver {
                early.insert(at, read);
                while let Some(read) = early.remove(&taken) {
                    taken += 1;
                    if let Err(error) = take(read) {
                        next.store(count, Ordering::Relaxed);
                        return Err(error);
                    }
                }
            }
            if taken < count {
                return Err(EngineError::new(Reason::Panic, "a thread that reads rows ended"));
            }
            Ok(())
        })
    }

    /// Reads one of the rows, proving what follows the head.
    fn read(&self, at: usize) -> Result<Vec<Replayed>, EngineError> {
        let row = &self.replay.rows[at];
        let place = |position: u64, error: EngineError| {
            let message = format!(
                "tenant {}, position {position}: {}",
                row.header.tenant, error.message
            );
            EngineError::new(error.reason, message)
        };
        let in_row = |error| place(row.header.position, error);
        let pieces = row.pieces().map_err(in_row)?;
        let raw = row.raw().map_err(in_row)?;
        let (before, mut previous) = match at.checked_sub(1) {
            Some(before) => (
                self.replay.rows[before].header.position,
                self.replay.rows[before].digest,
            ),
            None => (self.head, self.digest),
        };
        let first = pieces.first().map_or(0, |piece| piece.header.position);
        if first > before + 1 {
            let message = format!("it does not follow {before}");
            return Err(place(first, EngineError::new(Reason::PositionGap, message)));
        }
        let mut read = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let position = piece.header.position;
            if position == self.head && piece.digest != self.digest {
                return Err(place(position, corrupt("another segment was taken back")));
            }
            if position > self.replay.upto {
                break;
            }
            if position > self.head {
                let segment = self.read_segment(&piece, &raw[piece.bytes.clone()], &previous);
                read.push(segment.map_err(|error| place(position, error))?);
            }
            previous = piece.digest;
        }
        Ok(read)
    }

    fn read_segment(&self, piece: &Piece, raw: &[u8], previous: &Digest) -> Result<Replayed, EngineError> {
        let header = piece.header;
        if header.digest(previous, raw) != piece.digest {
            return Err(corrupt(
                "the digest does not fit the segment and the one before it",
            ));
        }
        let slices = piece.events(raw)?;
        let mut replayed = Replayed {
            position: header.position,
            digest: piece.digest,
            events: header.event_count.into(),
            ..Replayed::default()
        };
        let identities = header.position > self.replay.known;
        if identities {
            replayed.identities.reserve_exact(slices.len());
        }
        let mut event = Event::default();
        for (index, bytes) in (0_u32..).zip(slices) {
            let time_us = read_stored(&mut event, bytes, index)?;
            let day = Day::of(time_us.max(header.recorded_us));
            if identities && day >= self.oldest {
                let identity = self.hasher.identity(&event);
                let slot = Slot::new(identity, self.hasher.content(&event), day);
                replayed.identities.push(slot);
            }
            if self.replay.fold {
                replayed.observe(&event, self.meters, self.hasher);
                replayed
                    .events_of
                    .resize(replayed.observed.len(), (time_us, index));
            }
        }
        Ok(replayed)
    }
}

impl Replayed {
    /// A value that a meter put later cannot read is skipped: the event was
    /// accepted.
    fn observe(&mut self, event: &Event<'_>, meters: &MeterSet, hasher: &Hasher) {
        let mut key = (usize::MAX, 0, 0);
        for member in meters.of_type(event.kind) {
            if let Observation::Value(value) = member.observe(event, hasher) {
                // Members of one shape stand together and share the key.
                if key.0 != member.key_shape {
                    let start = self.keys.len();
                    push_key(&mut self.keys, &member.spec, event);
                    key = (member.key_shape, start, self.keys.len());
                }
                self.observed
                    .push(Observed::new(member.spec.id, (key.1, key.2), value));
            }
        }
    }

    fn merge(mut self, tenant: &mut Tenant, fold: bool) {
        // Whatever they were seen with before: stored events are accepted.
        tenant.identities.remember_all(&self.identities);
        if fold {
            let points = self.points(&mut tenant.windows);
            tenant.windows.fold(&points, self.position);
        } else {
            tenant.windows.set_position(self.position);
        }
        tenant.head = self.position;
        tenant.digest = self.digest;
    }

    fn points(&mut self, windows: &mut Windows) -> Vec<Point> {
        let mut points = Vec::with_capacity(self.observed.len());
        let mut groups = Finder::new(&self.keys);
        for (chunk, events) in self.observed.chunks_mut(CHUNK).zip(self.events_of.chunks(CHUNK)) {
            for one in &mut *chunk {
                groups.ask(one, windows);
            }
            groups.answer(chunk, windows);
            points.extend(chunk.iter().zip(events).map(|(one, &(time_us, index))| Point {
                value: one.value,
                time_us,
                group: groups.group(one, windows),
                index,
            }));
        }
        points
    }
}
