//! Queries: rows of blocks and memory, merged by window and group.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::HashMap;

use super::block::{Header, MINUTES_PER_DAY, OpenBlock, day_of};
use super::codec::corrupt;
use super::filter::{check_boundaries, window_of};
use super::group::{Groups, parts, subject};
use super::owner::Owners;
use super::partial::Partial;
use super::router::{Column, Reach, Router};
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
    /// A part of the rows; None: all.
    pub page: Option<Page>,
}

/// Some rows of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The window and group values that the rows come after.
    pub after: Option<(u32, Vec<String>)>,
    /// How many rows there are at most.
    pub limit: usize,
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
pub struct Query {
    tenant: u32,
    request: QueryRequest,
    spec: Arc<MeterSpec>,
    router: Router,
    position: u64,
    cells: HashMap<(u32, u32), Partial, RandomState>,
}

impl Query {
    /// Checks a request.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for names that are no dimensions and boundaries that do not increase.
    pub fn new(
        tenant: u32,
        request: QueryRequest,
        spec: Arc<MeterSpec>,
        owners: Arc<Owners>,
        position: u64,
    ) -> Result<Self, EngineError> {
        check_boundaries(&request.boundaries)?;
        let router = Router::new(&request, &spec, owners)?;
        Ok(Self {
            tenant,
            request,
            spec,
            router,
            position,
            cells: HashMap::default(),
        })
    }

    /// Merges the rows of blocks.
    ///
    /// # Errors
    /// `CORRUPT`, also for a block of another meter.
    pub fn add_blocks(&mut self, blocks: &[&[u8]]) -> Result<(), EngineError> {
        for payload in blocks {
            self.add_block(&OpenBlock::read(payload)?)?;
        }
        Ok(())
    }

    /// Merges blocks of a page. They come in the order of the first window that their day has a part in,
    /// then of their least subject. Returns whether no later block could change the page.
    ///
    /// # Errors
    /// As `add_blocks`.
    pub fn add_in_order(&mut self, blocks: &[&[u8]]) -> Result<bool, EngineError> {
        let mut last = None;
        for payload in blocks {
            let block = OpenBlock::read(payload)?;
            self.add_block(&block)?;
            last = Some(block);
        }
        let Some(last) = last else { return Ok(false) };
        let sections = last.sections()?;
        let begins = sections.first().map_or(&[][..], |section| subject(section.key));
        Ok(self.has_all_before(last.header.first_minute(), begins))
    }

    /// Whether the page ends before the usage of a subject in the window of a minute.
    fn has_all_before(&self, minute: i64, least: &[u8]) -> bool {
        let Some(page) = &self.request.page else {
            return false;
        };
        let boundaries = &self.request.boundaries;
        let ended = boundaries.partition_point(|boundary| i64::from(*boundary) <= minute);
        let window = ended.saturating_sub(1);
        if self.cells.len() < page.limit {
            return false;
        }
        let by_subject = matches!(self.router.columns.first(), Some(Column::Subject));
        // Of each result: whether it comes after the page before, in that one's last window, and whether
        // no later block of this window has it.
        let mut standing = vec![(true, false); self.router.results.len()];
        for (values, number) in &self.router.results {
            let known = by_subject && parts(values).next().is_some_and(|subject| subject < least);
            standing[*number as usize] = (!self.router.is_passed(values), known);
        }
        let begun = page.after.as_ref().map_or(0, |(window, _)| *window as usize);
        let in_page = self.cells.keys().filter(|(at, number)| {
            let (later, known) = standing[*number as usize];
            let at = *at as usize;
            (at > begun || at == begun && later) && (at < window || at == window && known)
        });
        in_page.take(page.limit).count() == page.limit
    }

    /// Whether all of a day belongs to pages before, but for what comes after their last group values.
    fn is_begun_window(&self, header: &Header) -> bool {
        let Some(after) = self.request.page.as_ref().and_then(|page| page.after.as_ref()) else {
            return false;
        };
        let end = self.request.boundaries.get(after.0 as usize + 1);
        end.is_some_and(|end| header.first_minute() + i64::from(MINUTES_PER_DAY) <= i64::from(*end))
    }

    fn add_block(&mut self, block: &OpenBlock<'_>) -> Result<(), EngineError> {
        let header = block.header;
        if header != Header::of(self.tenant, &self.spec, header.day) {
            return Err(corrupt(
                "it is of another tenant or meter, or its meter has changed",
            ));
        }
        let Some((first, last)) = self.span() else {
            return Ok(());
        };
        if header.day < day_of(first) || header.day > day_of(last) {
            return Ok(());
        }
        self.router.leave_passed = self.is_begun_window(&header);
        for section in block.sections()? {
            let reach = self.router.reach(section.key);
            if !matches!(reach, Reach::Nowhere) {
                section.rows(&header, |minute, partial| self.add(&reach, minute, &partial))?;
            }
        }
        Ok(())
    }

    fn span(&self) -> Option<(i32, i32)> {
        let boundaries = &self.request.boundaries;
        boundaries.first().copied().zip(boundaries.last().copied())
    }

    /// Merges rows in memory of the meter in a place.
    pub fn add_rows(&mut self, groups: &Groups, place: Place, table: &Table) {
        let Some((first, last)) = self.span() else { return };
        self.router.leave_passed = false;
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
        let (Some(target), Some(window)) =
            (reach.target(minute), window_of(&self.request.boundaries, minute))
        else {
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
    pub fn finish(self) -> Result<QueryResult, EngineError> {
        let mut results: Vec<(&[u8], u32)> = self
            .router
            .results
            .iter()
            .map(|(values, number)| (values.as_slice(), *number))
            .collect();
        results.sort_unstable_by(|(a, _), (b, _)| parts(a).cmp(parts(b)));
        let mut ranks = vec![0; results.len()];
        for (rank, (_, number)) in results.iter().enumerate() {
            ranks[*number as usize] = rank;
        }
        let mut cells: Vec<_> = self
            .cells
            .into_iter()
            .map(|((window, number), partial)| ((window, ranks[number as usize]), partial))
            .collect();
        cut(&mut cells, self.request.page.as_ref(), &results);
        cells.sort_unstable_by_key(|(place, _)| *place);
        let mut columns = QueryResult {
            position: self.position,
            ..QueryResult::default()
        };
        columns.groups = vec![Vec::with_capacity(cells.len()); self.router.columns.len()];
        for ((window, rank), partial) in cells {
            columns.windows.push(window);
            columns.values.push(partial.read(self.spec.aggregation)?);
            columns.event_counts.push(partial.count());
            for (column, value) in columns.groups.iter_mut().zip(parts(results[rank].0)) {
                column.push(String::from_utf8_lossy(value).into_owned());
            }
        }
        Ok(columns)
    }
}

/// A row before it is read: its window and the rank of its group values, and what it is to say.
type Cell = ((u32, usize), Partial);

/// Keeps the rows of a page, so that only they are sorted and read.
fn cut(cells: &mut Vec<Cell>, page: Option<&Page>, results: &[(&[u8], u32)]) {
    let Some(page) = page else { return };
    if let Some((window, values)) = &page.after {
        let values = || values.iter().map(String::as_bytes);
        let rank = results.partition_point(|(key, _)| parts(key).le(values()));
        // The first place after the one that is asked for.
        cells.retain(|(place, _)| *place >= (*window, rank));
    }
    if cells.len() > page.limit {
        cells.select_nth_unstable_by_key(page.limit, |(place, _)| *place);
        cells.truncate(page.limit);
    }
}
