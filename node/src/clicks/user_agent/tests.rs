//! What is said of real agents, against a corpus whose answers come from other sources than the lists.

use super::*;

const CORPUS: &str = include_str!("../../../../tests/corpora/user_agents.tsv");
/// The source that the list of crawlers comes from as well. Every other source is held out.
const SOURCE_OF_THE_LIST: &str = "crawler-user-agents";

struct Case {
    agent: &'static str,
    is_bot: bool,
    /// Browser, operating system and device; `-` for a program's.
    names: [&'static str; 3],
    source: &'static str,
}

fn corpus() -> Vec<Case> {
    let rows = CORPUS.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let fields: Vec<_> = row.split('\t').collect();
        let &[agent, kind, browser, operating_system, device, source] = &fields[..] else { panic!("{row}") };
        assert!(["person", "bot"].contains(&kind), "{row}");
        Case { agent, is_bot: kind == "bot", names: [browser, operating_system, device], source }
    })
    .collect()
}

/// At least 99 of 100 cases hold; the others are printed. `told` gives what was found and what is expected.
#[track_caller]
fn check(subject: &str, cases: &[Case], cases_min: usize, told: impl Fn(&Case) -> (&'static str, &'static str)) {
    assert!(cases.len() >= cases_min, "{subject}: there are {} cases", cases.len());
    let told = cases.iter().map(|case| (case.agent, told(case)));
    let wrong: Vec<_> = told
        .filter(|(_, (found, expected))| found != expected)
        .map(|(agent, (found, expected))| format!("{found}, and not {expected}: {agent}"))
        .collect();
    let right = cases.len() - wrong.len();
    println!("{subject}: {right} of {} right; wrong: {wrong:#?}", cases.len());
    assert!(wrong.len() * 100 <= cases.len(), "{subject}: {right} of {} right; wrong: {wrong:#?}", cases.len());
}

#[test]
fn people_and_programs_are_told_apart() {
    let name = |is_bot| if is_bot { "bot" } else { "person" };
    let told = |case: &Case| (name(parse(case.agent).bot), name(case.is_bot));
    let (held_out, listed): (Vec<_>, Vec<_>) = corpus().into_iter().partition(|case| case.source != SOURCE_OF_THE_LIST);
    check("programs of the list's own source", &listed, 100, told);
    let (bots, people): (Vec<_>, Vec<_>) = held_out.into_iter().partition(|case| case.is_bot);
    check("programs of other sources", &bots, 200, told);
    check("people", &people, 200, told);
}

#[test]
fn browsers_systems_and_devices_are_told_apart() {
    let people: Vec<_> = corpus().into_iter().filter(|case| !case.is_bot).collect();
    check("browsers", &people, 200, |case| (parse(case.agent).browser, case.names[0]));
    check("operating systems", &people, 200, |case| (parse(case.agent).operating_system, case.names[1]));
    check("devices", &people, 200, |case| (parse(case.agent).device, case.names[2]));
}

#[test]
fn no_user_agent_is_a_bot_that_nothing_is_known_of() {
    for header in ["", "  "] {
        let expected = UserAgent { browser: OTHER, operating_system: OTHER, device: OTHER_DEVICE, bot: true };
        assert_eq!(parse(header), expected);
    }
}
