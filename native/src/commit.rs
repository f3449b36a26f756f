//! Commits: groups are sealed one at a time, in order, and folded when durable.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use parking_lot::MutexGuard;

use crate::engine::Engine;
use crate::error::{EngineError, Reason};
use crate::group::{Committing, Draft, Group, Part, SealedGroup, State};
use crate::segment::{Digest, Header, Segment, compress};

impl Engine {
    /// Blocks until there is something to seal; false on time-out.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut state = self.state.lock();
        while !state.has_work() {
            if self.filled.wait_until(&mut state, deadline).timed_out() {
                return state.has_work();
            }
        }
        true
    }

    /// Takes the oldest pending group, numbers, compresses and chains its
    /// segments; the same group again until it is folded.
    ///
    /// # Errors
    /// None that is not a defect.
    pub fn seal(&self, now_us: i64) -> Result<Option<Arc<SealedGroup>>, EngineError> {
        let _one_at_a_time = self.sealing.lock();
        let Some((number, drafts, mut chains)) = ({
            let mut state = self.state.lock();
            if let Some(sealed) = state.committing.as_ref().and_then(|group| group.sealed.clone()) {
                return Ok(Some(sealed));
            }
            state.begin_commit()
        }) else {
            return Ok(None);
        };
        // Outside the lock: this is where the time goes.
        let mut segments = Vec::with_capacity(drafts.len());
        for (position, draft) in drafts {
            let previous = chains.entry(draft.tenant).or_default();
            let segment = seal_draft(&draft, position, previous, self.settings.codec, now_us)?;
            *previous = segment.digest;
            segments.push(Arc::new(segment));
        }
        let sealed = Arc::new(SealedGroup { number, segments });
        if let Some(group) = &mut self.state.lock().committing {
            group.sealed = Some(Arc::clone(&sealed));
        }
        Ok(Some(sealed))
    }

    /// Merges a durable group into partials and counters.
    ///
    /// # Errors
    /// `POSITION_GAP` if it is not the group that was sealed last.
    pub fn fold(&self, group: &SealedGroup) -> Result<(), EngineError> {
        let mut state = self.state.lock();
        let sealed = state
            .committing
            .as_ref()
            .filter(|committing| committing.sealed.is_some());
        if sealed.map(|committing| committing.number) != Some(group.number) {
            let message = format!(
                "group {} is not the one that was sealed and not folded",
                group.number
            );
            return Err(EngineError::new(Reason::PositionGap, message));
        }
        for segment in &group.segments {
            let Some(part) = state
                .committing
                .as_mut()
                .and_then(|group| group.parts.pop_front())
            else {
                break;
            };
            let tenant = state.tenant(segment.header.tenant)?;
            tenant.windows.fold(&part.points, part.position);
            tenant.head = part.position;
            tenant.digest = segment.digest;
            tenant.pending -= 1;
            self.pending
                .fetch_sub(part.draft.raw.len() as u64, Ordering::Relaxed);
            state.reuse(part);
            if state
                .committing
                .as_ref()
                .is_some_and(|group| !group.parts.is_empty())
            {
                MutexGuard::bump(&mut state);
            }
        }
        state.committing = None;
        Ok(())
    }
}

/// Number, drafts with their positions, and each tenant's last digest.
type Commit = (u64, Vec<(u64, Arc<Draft>)>, HashMap<u32, Digest>);

impl State {
    /// What is to be sealed, None if there is nothing. The group stays here,
    /// so that sealing that failed can be tried again.
    fn begin_commit(&mut self) -> Option<Commit> {
        if self.committing.is_none() {
            if self.queue.is_empty() {
                self.close_open_group();
            }
            let group = self.queue.pop_front()?;
            self.committing = Some(self.number_parts(group));
        }
        let committing = self.committing.as_ref()?;
        let drafts: Vec<_> = committing
            .parts
            .iter()
            .map(|part| (part.position, Arc::clone(&part.draft)))
            .collect();
        let digest = |tenant| self.tenants.get(&tenant).map_or([0; 32], |tenant| tenant.digest);
        let chains = drafts
            .iter()
            .map(|(_, draft)| (draft.tenant, digest(draft.tenant)))
            .collect();
        Some((committing.number, drafts, chains))
    }

    fn number_parts(&self, group: Group) -> Committing {
        let mut positions: HashMap<u32, u64> = HashMap::new();
        let number_part = |mut draft: Draft| {
            let position = match positions.entry(draft.tenant) {
                Entry::Occupied(last) => last.into_mut(),
                Entry::Vacant(first) => {
                    first.insert(self.tenants.get(&draft.tenant).map_or(0, |tenant| tenant.head))
                }
            };
            *position += 1;
            let points = std::mem::take(&mut draft.points);
            Part {
                position: *position,
                draft: Arc::new(draft),
                points,
            }
        };
        let parts = group.drafts.into_iter().map(number_part).collect();
        Committing {
            number: group.number,
            parts,
            sealed: None,
        }
    }
}

fn seal_draft(
    draft: &Draft,
    position: u64,
    previous: &Digest,
    codec: u8,
    now_us: i64,
) -> Result<Segment, EngineError> {
    let header = Header {
        tenant: draft.tenant,
        position,
        event_count: draft.event_count,
        recorded_us: now_us,
        // A draft takes no event after 4 MiB, and an event has 16 KiB.
        raw_bytes: u32::try_from(draft.raw.len()).unwrap_or(u32::MAX),
    };
    let digest = header.digest(previous, &draft.raw);
    let mut payload = compress(codec, &draft.raw)?;
    let mut stored_as = codec;
    if payload.len() >= draft.raw.len() {
        payload.clone_from(&draft.raw);
        stored_as = 0;
    }
    Ok(Segment {
        header,
        min_time_us: draft.min_time_us,
        max_time_us: draft.max_time_us,
        codec: stored_as,
        digest,
        payload,
        previous_digest: *previous,
    })
}
