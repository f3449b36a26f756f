//! What is asked of a tenant's windows: queries, and counters with the customers they are for.

use std::sync::Arc;

use super::Windows;
use super::counter::{Counter, CounterRequest};
use super::owner::Span;
use super::query::{Query, QueryRequest, QueryResult};
use super::shape::Place;
use crate::error::{EngineError, Reason};
use crate::meter::Quantity;

/// What `Counters::usage_since` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// Of all spans from the one asked for on, the span around the minute included.
    pub quantity: Quantity,
    /// First minute of the span around the minute.
    pub from_minute: i32,
    /// First minute after it.
    pub to_minute: i32,
    /// Which `put` made the counter.
    pub put: u64,
    /// Events in all spans before that span: as long as `put` and this stay, so do they.
    pub events_before: u64,
}

impl Windows {
    /// Merges blocks, complete up to position `checkpoint`, with the partials in memory above it.
    ///
    /// # Errors
    /// `UNKNOWN_METER`, `INVALID_DEFINITION` (a name that is no dimension, boundaries that do not
    /// increase), `STALE_SNAPSHOT`, `CORRUPT`, `OUT_OF_RANGE`.
    pub fn query(
        &self,
        request: &QueryRequest,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<QueryResult, EngineError> {
        let mut query = self.begin(request.clone(), checkpoint)?;
        query.add_blocks(blocks)?;
        query.finish()
    }

    /// Begins a query with the partials in memory above position `checkpoint`. What is left to do,
    /// merging blocks that are complete up to there, needs nothing of `self`.
    ///
    /// # Errors
    /// As `query`.
    pub fn begin(&self, request: QueryRequest, checkpoint: u64) -> Result<Query, EngineError> {
        let number = request.meter;
        let meter = self.meter(number)?;
        self.require_fresh(checkpoint)?;
        let (spec, owners) = (Arc::clone(&meter.spec), Arc::clone(&self.owners));
        let mut query = Query::new(self.tenant, request, spec, owners, self.position)?;
        for frozen in self.frozen.iter().filter(|frozen| frozen.position > checkpoint) {
            for table in &frozen.tables {
                if let Some(offset) = table.column(number) {
                    let shape = table.shape;
                    query.add_rows(&self.groups, Place { shape, offset }, &table.rows);
                }
            }
        }
        let open = self.shapes.table(meter.place.shape);
        query.add_rows(&self.groups, meter.place, open);
        Ok(query)
    }

    /// Refuses blocks that end before memory begins.
    pub(super) fn require_fresh(&self, checkpoint: u64) -> Result<(), EngineError> {
        if checkpoint < self.flushed {
            let message = format!(
                "blocks reach {checkpoint}, memory starts at {}: read the blocks again",
                self.flushed
            );
            return Err(EngineError::new(Reason::StaleSnapshot, message));
        }
        Ok(())
    }

    /// Sets who owns a subject from now on; counters keep what they have counted. The spans do not
    /// overlap; none forgets the subject.
    pub fn set_subject(&mut self, subject: &str, spans: Vec<Span>) {
        Arc::make_mut(&mut self.owners).set(subject, spans);
        self.reroute();
    }

    /// Who owns a subject, by time.
    #[must_use]
    pub fn spans(&self, subject: &str) -> &[Span] {
        self.owners.spans(subject.as_bytes())
    }

    /// Keeps a counter, starting from blocks and memory as `query` does.
    ///
    /// # Errors
    /// As `query`; then nothing has changed.
    pub fn put_counter(
        &mut self,
        request: CounterRequest,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<(), EngineError> {
        let mut counter = Counter::new(&request, &self.meter(request.meter)?.spec)?;
        let CounterRequest {
            meter,
            customer,
            filters,
            boundaries,
            ..
        } = request;
        let start = QueryRequest {
            meter,
            boundaries,
            filters,
            customers: vec![customer],
            ..QueryRequest::default()
        };
        let mut query = self.begin(start, checkpoint)?;
        query.add_blocks(blocks)?;
        for (span, partial) in query.into_spans() {
            counter.merge(span, &partial);
        }
        self.counters.put(counter);
        self.reroute();
        Ok(())
    }

    /// Forgets a counter.
    pub fn drop_counter(&mut self, counter: u64) {
        if self.counters.drop(counter) {
            self.reroute();
        }
    }

    /// Says which counters `take_touched` is to tell of; it tells of each of them once, for a start.
    pub fn watch_counters(&mut self, counters: &[u64], watched: bool) {
        self.counters.watch(counters, watched);
    }

    /// The watched counters that changed, or were put, since it was asked last.
    pub fn take_touched(&mut self) -> Vec<u64> {
        self.counters.take_touched()
    }

    /// For each of the counters what `usage` answers; None where it has no answer.
    #[must_use]
    pub fn usages(&self, counters: &[u64], minute: i32) -> Vec<Option<(Quantity, i32, i32)>> {
        let answer = |counter: &u64| self.counters.usage(*counter, minute).ok();
        counters.iter().map(answer).collect()
    }

    /// Quantity and bounds of a counter's span around a minute; 0 when nothing was used.
    ///
    /// # Errors
    /// `UNKNOWN_COUNTER`; `OUT_OF_RANGE` outside the spans or for a sum beyond 26 digits.
    pub fn usage(&self, counter: u64, minute: i32) -> Result<(Quantity, i32, i32), EngineError> {
        self.counters.usage(counter, minute)
    }

    /// Quantity of a counter's spans from the one around `since` up to the one around a minute.
    ///
    /// # Errors
    /// As `usage`.
    pub fn usage_since(&self, counter: u64, since: i32, minute: i32) -> Result<Since, EngineError> {
        self.counters.usage_since(counter, since, minute)
    }

    /// A counter's boundaries, and for each span the quantity from the last restart up to its end.
    ///
    /// # Errors
    /// As `usage`.
    pub fn running(&self, counter: u64, restarts: &[i32]) -> Result<(Vec<i32>, Vec<Quantity>), EngineError> {
        self.counters.running(counter, restarts)
    }
}
