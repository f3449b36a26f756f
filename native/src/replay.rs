//! Recovery: durable segments are taken back in order.

use std::hint::black_box;

use crate::engine::Engine;
use crate::error::{EngineError, Reason};
use crate::event::Event;
use crate::group::Tenant;
use crate::hash::{Content, Hasher, Identity};
use crate::identity::Day;
use crate::meter::Point;
use crate::observe::{MeterSet, Observation, push_key};
use crate::segment::{Digest, Header, corrupt, decompress, event_slices, read_stored};

/// Identities that are looked up together.
const CHUNK: usize = 64;

/// A stored segment and what to do with it.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// As stored.
    pub header: Header,
    /// As stored.
    pub codec: u8,
    /// As stored.
    pub payload: &'a [u8],
    /// As stored.
    pub digest: Digest,
    /// Merge into partials.
    pub fold: bool,
    /// Remember the identities.
    pub identities: bool,
    /// Identities that are too old by now are not remembered.
    pub now_us: i64,
}

/// What a segment holds, before it is merged.
#[derive(Default)]
struct Replayed {
    identities: Vec<(Identity, Content, Day)>,
    observed: Vec<Observed>,
    keys: Vec<u8>,
}

struct Observed {
    meter: u32,
    key_end: usize,
    value: i128,
    time_us: i64,
    index: u32,
}

impl Engine {
    /// Takes back one durable segment.
    ///
    /// # Errors
    /// `UNKNOWN_TENANT`; `POSITION_GAP` if it is not the next of its tenant or
    /// events are pending; `CORRUPT` if it does not verify.
    pub fn replay(&self, replay: &Replay<'_>) -> Result<(), EngineError> {
        let header = replay.header;
        let (previous, meters) = {
            let mut state = self.state.lock();
            let tenant = state.tenant(header.tenant)?;
            tenant.check_next(header.position)?;
            (tenant.digest, tenant.meters.clone())
        };
        let place = |error: EngineError| {
            let message = format!(
                "tenant {}, position {}: {}",
                header.tenant, header.position, error.message
            );
            EngineError::new(error.reason, message)
        };
        let raw = decompress(replay.codec, replay.payload, header.raw_bytes as usize).map_err(place)?;
        if header.digest(&previous, &raw) != replay.digest {
            return Err(place(corrupt(
                "the digest does not fit the segment and the one before it",
            )));
        }
        let replayed = self.read_back(&raw, replay, &meters).map_err(place)?;
        let mut state = self.state.lock();
        let tenant = state.tenant(header.tenant)?;
        tenant.check_next(header.position)?;
        replayed.merge(tenant, replay);
        Ok(())
    }

    fn read_back(&self, raw: &[u8], replay: &Replay<'_>, meters: &MeterSet) -> Result<Replayed, EngineError> {
        let slices = event_slices(raw)?;
        if slices.len() != replay.header.event_count as usize {
            let (found, wanted) = (slices.len(), replay.header.event_count);
            return Err(corrupt(format!("{found} events instead of {wanted}")));
        }
        let oldest = self.oldest_identity(replay.now_us);
        let mut replayed = Replayed::default();
        let hasher = self.hasher.clone();
        let mut event = Event::default();
        for (index, bytes) in (0_u32..).zip(slices) {
            let time_us = read_stored(&mut event, bytes, index)?;
            let day = Day::of(time_us.max(replay.header.recorded_us));
            if replay.identities && day >= oldest {
                let identity = hasher.identity(&event);
                replayed.identities.push((identity, hasher.content(&event), day));
            }
            if replay.fold {
                replayed.observe(&event, time_us, index, meters, &hasher);
            }
        }
        Ok(replayed)
    }
}

impl Replayed {
    /// A value that a meter put later cannot read is skipped: the event was
    /// accepted.
    fn observe(&mut self, event: &Event<'_>, time_us: i64, index: u32, meters: &MeterSet, hasher: &Hasher) {
        for member in meters.of_type(event.kind) {
            if let Observation::Value(value) = member.observe(event, hasher) {
                push_key(&mut self.keys, &member.spec, event);
                let key_end = self.keys.len();
                self.observed.push(Observed {
                    meter: member.spec.id,
                    key_end,
                    value,
                    time_us,
                    index,
                });
            }
        }
    }

    fn merge(self, tenant: &mut Tenant, replay: &Replay<'_>) {
        for chunk in self.identities.chunks(CHUNK) {
            // As in admission: take the chunk's cache misses at the same time.
            let touched = chunk
                .iter()
                .map(|(identity, ..)| tenant.identities.touch(*identity));
            black_box(touched.fold(0, u64::wrapping_add));
            for &(identity, content, day) in chunk {
                // Whatever it was seen with before: stored events are accepted.
                tenant.identities.remember(identity, content, day);
            }
        }
        let position = replay.header.position;
        if replay.fold {
            let mut key_start = 0;
            let points: Vec<Point> = self
                .observed
                .iter()
                .map(|one| {
                    let key = &self.keys[key_start..one.key_end];
                    key_start = one.key_end;
                    let group = tenant.windows.group(one.meter, key);
                    Point {
                        value: one.value,
                        time_us: one.time_us,
                        group,
                        index: one.index,
                    }
                })
                .collect();
            tenant.windows.fold(&points, position);
        } else {
            tenant.windows.set_position(position);
        }
        tenant.head = position;
        tenant.digest = replay.digest;
    }
}

impl Tenant {
    fn check_next(&self, position: u64) -> Result<(), EngineError> {
        if self.pending > 0 {
            let message = format!(
                "position {position} cannot be replayed while {} are pending",
                self.pending
            );
            return Err(EngineError::new(Reason::PositionGap, message));
        }
        if position != self.head + 1 {
            let message = format!("position {position} does not follow {}", self.head);
            return Err(EngineError::new(Reason::PositionGap, message));
        }
        Ok(())
    }
}
