//! Queries: rows of blocks and memory, merged by window and group.

use ahash::RandomState;
use hashbrown::hash_map::{EntryRef, HashMap};

use super::block::{Header, OpenBlock, day_of};
use super::codec::corrupt;
use super::counter::Route;
use super::filter::{CUSTOMER, Filters, SUBJECT, check_boundaries, dimension, window_of};
use super::group::{Groups, parts, subject};
use super::owner::Owners;
use super::partial::Partial;
use crate::error::EngineError;
use crate::meter::{MeterSpec, Quantity, push_key_part};

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

enum Column {
    Subject,
    Customer,
    Dimension(usize),
}

/// Decides which result each minute of a group belongs to.
struct Router<'a> {
    owners: &'a Owners,
    columns: Vec<Column>,
    filters: Filters,
    subjects: Vec<&'a [u8]>,
    customers: Vec<u64>,
    by_customer: bool,
    /// Group values, as a key has them, to the number of the result.
    results: HashMap<Vec<u8>, u32, RandomState>,
    values: Vec<u8>,
}

impl<'a> Router<'a> {
    fn new(request: &'a QueryRequest, spec: &MeterSpec, owners: &'a Owners) -> Result<Self, EngineError> {
        let column = |name: &String| {
            Ok(match name.as_str() {
                SUBJECT => Column::Subject,
                CUSTOMER => Column::Customer,
                _ => Column::Dimension(dimension(spec, name)?),
            })
        };
        let columns = request
            .group_by
            .iter()
            .map(column)
            .collect::<Result<Vec<_>, EngineError>>()?;
        let mut subjects: Vec<&[u8]> = request.subjects.iter().map(String::as_bytes).collect();
        subjects.sort_unstable();
        let mut customers = request.customers.clone();
        customers.sort_unstable();
        Ok(Self {
            owners,
            by_customer: !customers.is_empty() || columns.iter().any(|one| matches!(one, Column::Customer)),
            columns,
            filters: Filters::compile(spec, &request.filters)?,
            subjects,
            customers,
            results: HashMap::default(),
            values: Vec::new(),
        })
    }

    /// Where the group's minutes go, ascending; empty when nowhere.
    fn routes(&mut self, key: &[u8]) -> Vec<Route> {
        let subject = subject(key);
        let wanted = self.subjects.is_empty() || self.subjects.binary_search(&subject).is_ok();
        let mut routes = Vec::new();
        if !wanted || !self.filters.hold(key) {
            return routes;
        }
        let mut from = i32::MIN;
        if self.by_customer {
            for span in self.owners.spans(subject) {
                self.route(&mut routes, key, (from, span.from_minute), None);
                self.route(
                    &mut routes,
                    key,
                    (span.from_minute, span.to_minute),
                    Some(span.customer),
                );
                from = span.to_minute;
            }
        }
        self.route(&mut routes, key, (from, i32::MAX), None);
        routes
    }

    fn route(&mut self, routes: &mut Vec<Route>, key: &[u8], span: (i32, i32), customer: Option<u64>) {
        let kept = self.customers.is_empty()
            || customer.is_some_and(|customer| self.customers.binary_search(&customer).is_ok());
        if span.0 < span.1 && kept {
            let target = self.result(key, customer);
            routes.push(Route {
                from_minute: span.0,
                to_minute: span.1,
                target,
            });
        }
    }

    fn result(&mut self, key: &[u8], customer: Option<u64>) -> u32 {
        self.values.clear();
        for column in &self.columns {
            match column {
                Column::Subject => push_key_part(&mut self.values, subject(key)),
                Column::Dimension(index) => {
                    push_key_part(&mut self.values, parts(key).nth(index + 1).unwrap_or_default());
                }
                Column::Customer => {
                    let text = customer.map(|customer| customer.to_string()).unwrap_or_default();
                    push_key_part(&mut self.values, text.as_bytes());
                }
            }
        }
        let next = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        match self.results.entry_ref(self.values.as_slice()) {
            EntryRef::Occupied(known) => *known.get(),
            EntryRef::Vacant(new) => *new.insert(next),
        }
    }
}

/// A query under way.
pub struct Query<'a> {
    spec: &'a MeterSpec,
    boundaries: &'a [i32],
    router: Router<'a>,
    cells: HashMap<(u32, u32), Partial, RandomState>,
    /// Routes of memory's groups, as far as they were met.
    met: Vec<Option<Box<[Route]>>>,
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
            met: Vec::new(),
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
            let routes = self.router.routes(section.key);
            if !routes.is_empty() {
                section.rows(&header, |minute, partial| self.add(&routes, minute, &partial))?;
            }
        }
        Ok(())
    }

    /// Merges rows of memory.
    pub fn add_rows<'b>(&mut self, groups: &Groups, rows: impl Iterator<Item = (u32, i32, &'b Partial)>) {
        let mut met = std::mem::take(&mut self.met);
        met.resize(groups.len(), None);
        let span = self.boundaries.first().zip(self.boundaries.last());
        let Some((&first, &last)) = span else { return };
        for (group, minute, partial) in rows.filter(|(_, minute, _)| (first..last).contains(minute)) {
            let routes =
                met[group as usize].get_or_insert_with(|| self.router.routes(groups.key(group)).into());
            self.add(routes, minute, partial);
        }
        self.met = met;
    }

    fn add(&mut self, routes: &[Route], minute: i32, partial: &Partial) {
        let after = routes.partition_point(|route| route.from_minute <= minute);
        let route = after
            .checked_sub(1)
            .and_then(|at| routes.get(at))
            .filter(|route| minute < route.to_minute);
        let (Some(route), Some(window)) = (route, window_of(self.boundaries, minute)) else {
            return;
        };
        let window = u32::try_from(window).unwrap_or(u32::MAX);
        let cell = self.cells.entry((window, route.target));
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
