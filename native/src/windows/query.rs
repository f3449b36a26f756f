//! Queries: rows of blocks and memory, merged by window and group.

use ahash::RandomState;
use hashbrown::HashMap;

use super::block::{Header, OpenBlock, day_of};
use super::codec::corrupt;
use super::filter::{check_boundaries, window_of};
use super::group::{Groups, parts};
use super::owner::Owners;
use super::partial::Partial;
use super::router::{Reach, Router};
use super::shape::Place;
use super::table::Table;
use crate::error::EngineError;
use crate::meter::{MeterSpec, Quantity};

/// What to sum up, and by what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryRequest {
    /// The meter.
    pub meter: u32,
    /// Increasing minutes; window i is [boundary i, boundary i + 1).
    pub boundaries: Vec<i32>,
    /// "subject", "customer" (its number as text, "" for none) or dimensions of the meter.
    pub group_by: Vec<String>,
    /// (dimension, allowed values); all must hold.
    pub filters: Vec<(String, Vec<String>)>,
    /// Only these; empty: all.
    pub subjects: Vec<String>,
    /// Only usage owned by these; empty: all.
    pub customers: Vec<u64>,
}

/// Columns of equal length, ordered by window, then group values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryResult {
    /// Indexes of windows.
    pub windows: Vec<u32>,
    /// One column per `group_by` entry.
    pub groups: Vec<Vec<String>>,
    /// Quantities.
    pub values: Vec<Quantity>,
    /// Numbers of events.
    pub event_counts: Vec<u64>,
    /// The last position that the result reflects.
    pub position: u64,
}

/// A query under way.
pub struct Query<'a> {
    spec: &'a MeterSpec,
    boundaries: &'a [i32],
    router: Router<'a>,
    cells: HashMap<(u32, u32), Partial, RandomState>,
}

impl<'a> Query<'a> {
    /// Checks a request.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for names that are no dimensions and boundaries that do not increase.
    pub fn new(
        request: &'a QueryRequest,
        spec: &'a MeterSpec,
        owners: &'a Owners,
    ) -> Result<Self, EngineError> {
        check_boundaries(&request.boundaries)?;
        let router = Router::new(request, spec, owners)?;
        Ok(Self {
            spec,
            boundaries: &request.boundaries,
            router,
            cells: HashMap::default(),
        })
    }

    /// Merges the rows of blocks.
    ///
    /// # Errors
    /// `CORRUPT`, also for a block of another meter.
    pub fn add_blocks(&mut self, tenant: u32, blocks: &[&[u8]]) -> Result<(), EngineError> {
        for payload in blocks {
            self.add_block(tenant, &OpenBlock::read(payload)?)?;
        }
        Ok(())
    }

    fn add_block(&mut self, tenant: u32, block: &OpenBlock<'_>) -> Result<(), EngineError> {
        let header = block.header;
        if header != Header::of(tenant, self.spec, header.day) {
            return Err(corrupt(
                "it is of another tenant or meter, or its meter has changed",
            ));
        }
        let (Some(first), Some(last)) = (self.boundaries.first(), self.boundaries.last()) else {
            return Ok(());
        };
        if header.day < day_of(*first) || header.day > day_of(*last) {
            return Ok(());
        }
        for section in block.sections()? {
            let reach = self.router.reach(section.key);
            if !matches!(reach, Reach::Nowhere) {
                section.rows(&header, |minute, partial| self.add(&reach, minute, &partial))?;
            }
        }
        Ok(())
    }

    /// Merges rows in memory of the meter in a place.
    pub fn add_rows(&mut self, groups: &Groups, place: Place, table: &Table) {
        let span = self.boundaries.first().zip(self.boundaries.last());
        let Some((&first, &last)) = span else { return };
        if let Some(wanted) = &self.router.subjects {
            let wanted: Vec<u32> = wanted
                .iter()
                .flat_map(|subject| groups.of_subject(place.shape, subject))
                .collect();
            if let Some(rows) = table.rows_of(&wanted, first..last) {
                rows.for_each(|(group, minute, row)| {
                    let reach = self.router.reach(groups.key(group));
                    self.add(&reach, minute, table.cell(row, place.offset));
                });
                return;
            }
        }
        // Not by group number: soon after a freeze there are far fewer rows than groups.
        let mut met: HashMap<u32, Reach, RandomState> = HashMap::default();
        for (group, minute, row) in table.rows() {
            let partial = table.cell(row, place.offset);
            if partial.count() == 0 || !(first..last).contains(&minute) {
                continue;
            }
            let reach = met
                .entry(group)
                .or_insert_with(|| self.router.reach(groups.key(group)));
            self.add(reach, minute, partial);
        }
    }

    fn add(&mut self, reach: &Reach, minute: i32, partial: &Partial) {
        let (Some(target), Some(window)) = (reach.target(minute), window_of(self.boundaries, minute)) else {
            return;
        };
        if partial.count() == 0 {
            return;
        }
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        let cell = self.cells.entry((window, target));
        cell.or_insert_with(|| Partial::empty(self.spec.aggregation))
            .merge(partial);
    }

    /// The partials by window, of a query that groups by nothing.
    pub fn into_spans(self) -> impl Iterator<Item = (usize, Partial)> {
        self.cells
            .into_iter()
            .map(|((window, _), partial)| (window as usize, partial))
    }

    /// Orders and reads the result.
    ///
    /// # Errors
    /// `OUT_OF_RANGE` when a sum has more than 26 integer digits.
    pub fn finish(self, position: u64) -> Result<QueryResult, EngineError> {
        let mut results: Vec<(Vec<String>, u32)> = self
            .router
            .results
            .iter()
            .map(|(values, number)| (texts(values), *number))
            .collect();
        results.sort_unstable();
        let mut ranks = vec![0; results.len()];
        for (rank, (_, number)) in results.iter().enumerate() {
            ranks[*number as usize] = rank;
        }
        let mut cells: Vec<_> = self.cells.into_iter().collect();
        cells.sort_unstable_by_key(|((window, number), _)| (*window, ranks[*number as usize]));
        let mut columns = QueryResult {
            position,
            ..QueryResult::default()
        };
        columns.groups = vec![Vec::with_capacity(cells.len()); self.router.columns.len()];
        for ((window, number), partial) in cells {
            columns.windows.push(window);
            columns.values.push(partial.read(self.spec.aggregation)?);
            columns.event_counts.push(partial.count());
            let (values, _) = &results[ranks[number as usize]];
            for (column, value) in columns.groups.iter_mut().zip(values) {
                column.push(value.clone());
            }
        }
        Ok(columns)
    }
}

fn texts(values: &[u8]) -> Vec<String> {
    parts(values)
        .map(|value| String::from_utf8_lossy(value).into_owned())
        .collect()
}
