//! Which result of a query a group's usage belongs to, minute by minute.

use std::sync::Arc;

use ahash::RandomState;
use hashbrown::hash_map::{EntryRef, HashMap};

use super::counter::Route;
use super::filter::{CUSTOMER, Filters, SUBJECT, dimension};
use super::group::{parts, subject};
use super::owner::Owners;
use super::query::QueryRequest;
use crate::error::EngineError;
use crate::meter::{MeterSpec, push_key_part};

/// Where a group's minutes go.
#[derive(Clone, Debug)]
pub enum Reach {
    /// Not asked for.
    Nowhere,
    /// All to one result.
    Whole(u32),
    /// To several, ascending by minute.
    Spans(Box<[Route]>),
}

impl Reach {
    /// The result that a minute belongs to.
    #[inline]
    pub fn target(&self, minute: i32) -> Option<u32> {
        match self {
            Self::Nowhere => None,
            Self::Whole(target) => Some(*target),
            Self::Spans(routes) => {
                let after = routes.partition_point(|route| route.from_minute <= minute);
                let route = routes.get(after.checked_sub(1)?)?;
                (minute < route.to_minute).then_some(route.target)
            }
        }
    }
}

/// The subjects that a request can concern; None: any.
fn wanted(request: &QueryRequest, owners: &Owners) -> Option<Vec<Box<[u8]>>> {
    let mut subjects: Vec<&[u8]> = request.subjects.iter().map(String::as_bytes).collect();
    subjects.sort_unstable();
    subjects.dedup();
    if !request.customers.is_empty() {
        let mut owned: Vec<&[u8]> = request
            .customers
            .iter()
            .flat_map(|customer| owners.subjects(*customer))
            .collect();
        owned.sort_unstable();
        owned.dedup();
        if !subjects.is_empty() {
            owned.retain(|subject| subjects.binary_search(subject).is_ok());
        }
        return Some(owned.into_iter().map(Box::from).collect());
    }
    (!subjects.is_empty()).then(|| subjects.into_iter().map(Box::from).collect())
}

/// One entry of `group_by`.
pub enum Column {
    /// The subject.
    Subject,
    /// Its owner.
    Customer,
    /// A dimension, by index.
    Dimension(usize),
}

/// Decides which result each minute of a group belongs to.
pub struct Router {
    owners: Arc<Owners>,
    pub columns: Vec<Column>,
    filters: Filters,
    /// The only subjects whose usage can be asked for, sorted; none: all.
    pub subjects: Option<Vec<Box<[u8]>>>,
    customers: Vec<u64>,
    by_customer: bool,
    /// Group values, as a key has them, to the number of the result.
    pub results: HashMap<Vec<u8>, u32, RandomState>,
    values: Vec<u8>,
    /// The last group values of the page before.
    passed: Option<Vec<String>>,
    /// What comes up to those, `reach` need not tell of.
    pub leave_passed: bool,
}

impl Router {
    /// Compiles a request.
    ///
    /// # Errors
    /// `INVALID_DEFINITION` for names that are no dimensions.
    pub fn new(request: &QueryRequest, spec: &MeterSpec, owners: Arc<Owners>) -> Result<Self, EngineError> {
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
        let mut customers = request.customers.clone();
        customers.sort_unstable();
        Ok(Self {
            subjects: wanted(request, &owners),
            owners,
            by_customer: !customers.is_empty() || columns.iter().any(|one| matches!(one, Column::Customer)),
            columns,
            filters: Filters::compile(spec, &request.filters)?,
            customers,
            results: HashMap::default(),
            values: Vec::new(),
            passed: request
                .page
                .as_ref()
                .and_then(|page| Some(page.after.as_ref()?.1.clone())),
            leave_passed: false,
        })
    }

    /// Where the group's minutes go.
    pub fn reach(&mut self, key: &[u8]) -> Reach {
        let subject = subject(key);
        let unwanted = self
            .subjects
            .as_ref()
            .is_some_and(|wanted| wanted.binary_search_by(|one| (**one).cmp(subject)).is_err());
        if unwanted || !self.filters.hold(key) {
            return Reach::Nowhere;
        }
        if !self.by_customer {
            self.put_values(key, None);
            if self.leave_passed && self.is_passed(&self.values) {
                return Reach::Nowhere;
            }
            return Reach::Whole(self.result());
        }
        let mut routes = Vec::new();
        let mut from = i32::MIN;
        let owners = Arc::clone(&self.owners);
        for span in owners.spans(subject) {
            self.route(&mut routes, key, (from, span.from_minute), None);
            self.route(
                &mut routes,
                key,
                (span.from_minute, span.to_minute),
                Some(span.customer),
            );
            from = span.to_minute;
        }
        self.route(&mut routes, key, (from, i32::MAX), None);
        if routes.is_empty() {
            Reach::Nowhere
        } else {
            Reach::Spans(routes.into())
        }
    }

    fn route(&mut self, routes: &mut Vec<Route>, key: &[u8], span: (i32, i32), customer: Option<u64>) {
        let kept = self.customers.is_empty()
            || customer.is_some_and(|customer| self.customers.binary_search(&customer).is_ok());
        if span.0 < span.1 && kept {
            self.put_values(key, customer);
            let target = self.result();
            routes.push(Route {
                from_minute: span.0,
                to_minute: span.1,
                target,
            });
        }
    }

    /// Whether group values, as a key has them, are no later than those of the page before.
    pub fn is_passed(&self, values: &[u8]) -> bool {
        let passed = self.passed.as_ref();
        passed.is_some_and(|passed| parts(values).le(passed.iter().map(String::as_bytes)))
    }

    fn put_values(&mut self, key: &[u8], customer: Option<u64>) {
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
    }

    /// The number of the result with those values.
    fn result(&mut self) -> u32 {
        let next = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
        match self.results.entry_ref(self.values.as_slice()) {
            EntryRef::Occupied(known) => *known.get(),
            EntryRef::Vacant(new) => *new.insert(next),
        }
    }
}
