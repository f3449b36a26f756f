//! Many questions at once are answered as each by itself.

use crate::windows::{Answers, Form, QueryRequest, SurveyRequest, Windows};

/// Asks several customers what a query asks, and about whole spans, both ways.
pub(super) fn is_as_queries(windows: &Windows, request: &QueryRequest, payloads: &[&[u8]], checkpoint: u64) {
    let mut group_by = request.group_by.clone();
    group_by.retain(|name| name != "customer");
    let form = Form {
        boundaries: request.boundaries.clone(),
        group_by,
        filters: request.filters.clone(),
    };
    let whole = Form {
        boundaries: vec![0, 1000, 3000, 100_000],
        ..Form::default()
    };
    let asked: Vec<(u64, u32)> = (0..5)
        .flat_map(|customer| [(customer, 1), (customer, 0)])
        .collect();
    let survey = SurveyRequest {
        meter: request.meter,
        forms: vec![form, whole],
        asked,
    };
    let answers = windows.survey(&survey, payloads, checkpoint).unwrap();
    let mut expected = Answers {
        position: answers.position,
        ..Answers::default()
    };
    for (question, (customer, form)) in (0..).zip(&survey.asked) {
        let form = survey.forms[*form as usize].clone();
        let one = QueryRequest {
            meter: request.meter,
            boundaries: form.boundaries,
            group_by: form.group_by,
            filters: form.filters,
            customers: vec![*customer],
            ..QueryRequest::default()
        };
        let result = windows.query(&one, payloads, checkpoint).unwrap();
        assert_eq!(result.position, answers.position);
        for place in 0..result.windows.len() {
            expected.questions.push(question);
            expected.windows.push(result.windows[place]);
            let values = result.groups.iter().map(|column| column[place].clone());
            expected.groups.push(values.collect());
            expected.values.push(result.values[place]);
            expected.event_counts.push(result.event_counts[place]);
        }
    }
    assert_eq!(answers, expected, "{survey:?}");
}
