//! Many questions about customers' usage of one meter, answered in one pass over it.

use ahash::RandomState;
use hashbrown::HashMap;

use super::Windows;
use super::block::{Header, OpenBlock, day_of};
use super::codec::corrupt;
use super::filter::{CUSTOMER, Filters, SUBJECT, check_boundaries, dimension, window_of};
use super::group::{Groups, parts, subject};
use super::owner::Owners;
use super::partial::Partial;
use super::shape::Place;
use super::table::Table;
use crate::error::EngineError;
use crate::meter::{MeterSpec, Quantity, push_key_part};

/// What several customers are asked alike.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Form {
    /// Increasing minutes; window i is [boundary i, boundary i + 1).
    pub boundaries: Vec<i32>,
    /// "subject" or dimensions of the meter.
    pub group_by: Vec<String>,
    /// (dimension, allowed values); all must hold.
    pub filters: Vec<(String, Vec<String>)>,
}

/// Questions about one meter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SurveyRequest {
    /// The meter.
    pub meter: u32,
    /// What is asked.
    pub forms: Vec<Form>,
    /// Who is asked which of them: (customer, index of the form). A question's number is its place.
    pub asked: Vec<(u64, u32)>,
}

/// Columns of equal length, ordered by question, window, then group values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Answers {
    /// Numbers of questions.
    pub questions: Vec<u32>,
    /// Indexes of windows.
    pub windows: Vec<u32>,
    /// Values of what the question groups by.
    pub groups: Vec<Vec<String>>,
    /// Quantities.
    pub values: Vec<Quantity>,
    /// Numbers of events.
    pub event_counts: Vec<u64>,
    /// The last position that the answers reflect.
    pub position: u64,
}

/// A form, compiled.
struct Rule<'a> {
    boundaries: &'a [i32],
    filters: Filters,
    /// Places in a key.
    columns: Vec<usize>,
}

/// Minutes [from, to) of a group's usage belong to a result.
struct Target {
    from_minute: i32,
    to_minute: i32,
    rule: u32,
    result: u32,
}

/// A survey under way.
struct Survey<'a> {
    spec: &'a MeterSpec,
    owners: &'a Owners,
    rules: Vec<Rule<'a>>,
    /// Questions and their rules, by customer.
    asked: HashMap<u64, Vec<(u32, u32)>, RandomState>,
    /// The least and the greatest minute that any question is about.
    span: Option<(i32, i32)>,
    /// A question and group values, as a key has them, to the number of the result.
    results: HashMap<(u32, Vec<u8>), u32, RandomState>,
    cells: HashMap<(u32, u32), Partial, RandomState>,
}

impl Windows {
    /// Answers many questions as `query` would each, of one moment.
    ///
    /// # Errors
    /// As `query`, and `INVALID_DEFINITION` for a form that is not there.
    pub fn survey(
        &self,
        request: &SurveyRequest,
        blocks: &[&[u8]],
        checkpoint: u64,
    ) -> Result<Answers, EngineError> {
        let meter = self.meter(request.meter)?;
        self.require_fresh(checkpoint)?;
        let mut survey = Survey::new(request, &meter.spec, &self.owners)?;
        survey.add_blocks(self.tenant, blocks)?;
        for frozen in self.frozen.iter().filter(|frozen| frozen.position > checkpoint) {
            for table in &frozen.tables {
                if let Some(offset) = table.column(request.meter) {
                    let shape = table.shape;
                    survey.add_rows(&self.groups, Place { shape, offset }, &table.rows);
                }
            }
        }
        survey.add_rows(&self.groups, meter.place, self.shapes.table(meter.place.shape));
        survey.finish(self.position)
    }
}

impl<'a> Survey<'a> {
    fn new(request: &'a SurveyRequest, spec: &'a MeterSpec, owners: &'a Owners) -> Result<Self, EngineError> {
        let rules = request
            .forms
            .iter()
            .map(|form| Rule::compile(form, spec))
            .collect::<Result<Vec<_>, _>>()?;
        let mut asked: HashMap<u64, Vec<(u32, u32)>, RandomState> = HashMap::default();
        for (question, (customer, form)) in (0..).zip(&request.asked) {
            if *form as usize >= rules.len() {
                return Err(EngineError::invalid_definition(format!(
                    "there is no form {form}"
                )));
            }
            asked.entry(*customer).or_default().push((question, *form));
        }
        let edges = || rules.iter().flat_map(|rule| rule.boundaries);
        Ok(Self {
            span: edges().min().copied().zip(edges().max().copied()),
            spec,
            owners,
            rules,
            asked,
            results: HashMap::default(),
            cells: HashMap::default(),
        })
    }

    fn add_blocks(&mut self, tenant: u32, blocks: &[&[u8]]) -> Result<(), EngineError> {
        let Some((first, last)) = self.span else {
            return Ok(());
        };
        for payload in blocks {
            let block = OpenBlock::read(payload)?;
            let header = block.header;
            if header != Header::of(tenant, self.spec, header.day) {
                return Err(corrupt(
                    "it is of another tenant or meter, or its meter has changed",
                ));
            }
            if header.day < day_of(first) || header.day > day_of(last) {
                continue;
            }
            for section in block.sections()? {
                let targets = self.targets(section.key);
                if !targets.is_empty() {
                    section.rows(&header, |minute, partial| self.add(&targets, minute, &partial))?;
                }
            }
        }
        Ok(())
    }

    /// Merges rows in memory of the meter in a place.
    fn add_rows(&mut self, groups: &Groups, place: Place, table: &Table) {
        let Some((first, last)) = self.span else { return };
        let owners = self.owners;
        let customers: Vec<u64> = self.asked.keys().copied().collect();
        let mut wanted: HashMap<u32, Box<[Target]>, RandomState> = HashMap::default();
        for subject in customers.iter().flat_map(|customer| owners.subjects(*customer)) {
            for group in groups.of_subject(place.shape, subject) {
                if !wanted.contains_key(&group) {
                    wanted.insert(group, self.targets(groups.key(group)));
                }
            }
        }
        wanted.retain(|_, targets| !targets.is_empty());
        let keys: Vec<u32> = wanted.keys().copied().collect();
        let mut add = |(group, minute, row): (u32, i32, u32)| {
            if let Some(targets) = wanted.get(&group) {
                self.add(targets, minute, table.cell(row, place.offset));
            }
        };
        if keys.is_empty() {
            return;
        }
        match table.rows_of(&keys, first..last) {
            Some(rows) => rows.for_each(&mut add),
            None => table.rows().for_each(&mut add),
        }
    }

    /// Where a group's minutes go.
    fn targets(&mut self, key: &[u8]) -> Box<[Target]> {
        let mut targets = Vec::new();
        for span in self.owners.spans(subject(key)) {
            let Some(questions) = self.asked.get(&span.customer) else {
                continue;
            };
            for &(question, rule) in questions {
                let asks = &self.rules[rule as usize];
                if !asks.filters.hold(key) {
                    continue;
                }
                let next = u32::try_from(self.results.len()).unwrap_or(u32::MAX);
                let result = *self.results.entry((question, asks.values(key))).or_insert(next);
                targets.push(Target {
                    from_minute: span.from_minute,
                    to_minute: span.to_minute,
                    rule,
                    result,
                });
            }
        }
        targets.into()
    }

    fn add(&mut self, targets: &[Target], minute: i32, partial: &Partial) {
        if partial.count() == 0 {
            return;
        }
        for target in targets {
            if !(target.from_minute..target.to_minute).contains(&minute) {
                continue;
            }
            let Some(window) = window_of(self.rules[target.rule as usize].boundaries, minute) else {
                continue;
            };
            let window = u32::try_from(window).unwrap_or(u32::MAX);
            let cell = self.cells.entry((target.result, window));
            cell.or_insert_with(|| Partial::empty(self.spec.aggregation))
                .merge(partial);
        }
    }

    fn finish(self, position: u64) -> Result<Answers, EngineError> {
        let mut owners_of = vec![(0, Vec::new()); self.results.len()];
        for ((question, values), result) in self.results {
            let texts = parts(&values).map(|value| String::from_utf8_lossy(value).into_owned());
            owners_of[result as usize] = (question, texts.collect());
        }
        let mut cells: Vec<_> = self.cells.into_iter().collect();
        cells.sort_unstable_by(|((a, window_a), _), ((b, window_b), _)| {
            let ((question_a, values_a), (question_b, values_b)) =
                (&owners_of[*a as usize], &owners_of[*b as usize]);
            (question_a, window_a, values_a).cmp(&(question_b, window_b, values_b))
        });
        let mut columns = Answers {
            position,
            ..Answers::default()
        };
        for ((result, window), partial) in cells {
            let (question, values) = &owners_of[result as usize];
            columns.questions.push(*question);
            columns.windows.push(window);
            columns.groups.push(values.clone());
            columns.values.push(partial.read(self.spec.aggregation)?);
            columns.event_counts.push(partial.count());
        }
        Ok(columns)
    }
}

impl<'a> Rule<'a> {
    fn compile(form: &'a Form, spec: &MeterSpec) -> Result<Self, EngineError> {
        check_boundaries(&form.boundaries)?;
        let column = |name: &String| match name.as_str() {
            SUBJECT => Ok(0),
            CUSTOMER => Err(EngineError::invalid_definition(
                "a survey is by customers in any case".to_owned(),
            )),
            _ => Ok(dimension(spec, name)? + 1),
        };
        Ok(Self {
            boundaries: &form.boundaries,
            filters: Filters::compile(spec, &form.filters)?,
            columns: form.group_by.iter().map(column).collect::<Result<_, _>>()?,
        })
    }

    /// What a group has in the columns, as a key has it.
    fn values(&self, key: &[u8]) -> Vec<u8> {
        let mut values = Vec::new();
        for column in &self.columns {
            push_key_part(&mut values, parts(key).nth(*column).unwrap_or_default());
        }
        values
    }
}
