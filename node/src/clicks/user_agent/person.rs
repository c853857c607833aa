//! Whether a `User-Agent` is that of a person's browser.
//!
//! A person's agent begins as a browser's does, names a platform and an engine, and is on no list of programs. Everything
//! else counts as a bot. The lists are data in `node/data/agents`: `crawlers.txt` comes from a maintained source
//! (`cargo xtask agents` refreshes it), `programs.txt` adds what that source misses, and `browsers.txt` names its entries
//! that browsers of people match, too. Nearly all entries are plain text, which one automaton finds in a single pass that
//! costs the same whatever the agent holds. The few that are expressions become another one. Both are built once.
//!
//! The model of a phone is taken out first: makers sell phones named `M bot 60` and `Fever`.

use std::sync::LazyLock;

use aho_corasick::AhoCorasick;
use regex::bytes::{Regex, RegexBuilder};

/// Programs that a maintained source knows.
const CRAWLERS: &str = include_str!("../../../data/agents/crawlers.txt");
/// Programs that the source misses.
const PROGRAMS: &str = include_str!("../../../data/agents/programs.txt");
/// Entries of the source that are browsers of people.
const BROWSERS: &str = include_str!("../../../data/agents/browsers.txt");

/// How agents of browsers begin: today's; those of Opera and UC; of text browsers; of televisions; of phones before 2012.
const STARTS: &str = r"^(?:Mozilla[/ ]\d\.\d+ ?(?:\[[A-Za-z-]+\] ?)?\(|Opera/\d+\.\d+ ?\(|UCWEB/|JUC ?\(|HbbTV/\d|(?:TV Bro|(?:MQQ|One)Browser)/[\w./]*[ /]Mozilla/5)";
const TEXT_BROWSERS: &str = r"^(?:Lynx/\d|w3m/\d|E?Links ?[/(]|Dillo/\d|NetSurf/\d)";
const OLD_PHONES: &str = r"(?i)^(?:Alcatel|Amoi|BenQ|DoCoMo|HTC|Huawei|J-PHONE|KDDI|Kyocera|Lenovo|LGE?|Micromax|MOT|Motorola|NEC|Panasonic|Pantech|Philips|SAGEM|Samsung|Sanyo|SEC|Sharp|SIE|SoftBank|Toshiba|Vodafone|ZTE)[-_ /0-9]|(?i)^(?:BlackBerry|Nokia|SonyEricsson)[-_ /]?[A-Z]{0,3}\d";
/// What the browsers of [`OLD_PHONES`] say besides the phone's name.
const OLD_PHONE_BROWSERS: &str = r"(?i)Profile/MIDP|Configuration/CLDC|UP\.Browser|NetFront|Obigo|Dolfin|MMP/|WAP|DoCoMo|J-PHONE|AppleWebKit|Gecko|Opera|UCWEB|Browser|Mozilla";
/// Every browser that begins with `Mozilla` names its engine, or is one of a few old ones.
const ENGINES: &str = r"(?i)AppleWebKit|Gecko/|like Gecko|Trident/|MSIE|Presto|KHTML|Opera|Goanna|NetFront|Servo|IEMobile|Mozilla/[1-4]|Nintendo|PLAYSTATION|Firefox/|UC ?(?:Browser|WEB)|Teleca|Symb|PSP|Obigo|HbbTV";
/// Every browser that begins with `Mozilla` names what it runs on in its first comment.
const PLATFORMS: &str = r"(?i)Windows|Win ?(?:9[58x]|NT|32|64|16|CE)|Mac(?:intosh|_| ?OS)|Linux|X11|Android|iPhone|iPad|iPod|CrOS|Harmony|Tizen|Web0S|webOS|hpwOS|PlayStation|Nintendo|PSP|Mobile|Tablet|TV|Symb|Series|S60|BlackBerry|BB10|PlayBook|BSD|SunOS|Haiku|BeOS|OS/2|Amiga|AROS|MeeGo|Maemo|KaiOS|Kindle|J2ME|Java|BREW|Bada|Fuchsia|Xbox|Darwin|Wii|QNX|RISC OS|Sailfish|Ubuntu|MAUI|PalmOS|PalmSource|MIDP|CLDC|FOMA|iOS|MRE|LG|Nokia|Samsung|AIX|HP-UX|IRIX|Smart";
/// Browsers that call themselves `compatible`. The word is otherwise a program's.
const COMPATIBLE: &str = r"MSIE|Konqueror|Opera|IE 9|NetFront|Teleca";
/// Where apps repeat the model of the phone: Facebook and Instagram.
const MODELS_OF_APPS: &str = r"FBDV/[^;\]]*|Android \(\d+/[^)]*\)?";

struct Agents {
    starts: Regex,
    text_browsers: Regex,
    old_phones: Regex,
    old_phone_browsers: Regex,
    engines: Regex,
    platforms: Regex,
    compatible: Regex,
    models_of_apps: Regex,
    crawlers: AhoCorasick,
    programs: AhoCorasick,
    expressions: Regex,
}

static AGENTS: LazyLock<Agents> = LazyLock::new(|| {
    let people: Vec<_> = entries(BROWSERS).collect();
    let (crawlers, expressions) = split(entries(CRAWLERS).filter(|entry| !people.contains(entry)));
    let (programs, more_expressions) = split(entries(PROGRAMS));
    let expressions = expressions.into_iter().map(|entry| format!("(?:{entry})"));
    let expressions = expressions.chain(more_expressions.into_iter().map(|entry| format!("(?i:{entry})")));
    Agents {
        starts: regex(STARTS),
        text_browsers: regex(TEXT_BROWSERS),
        old_phones: regex(OLD_PHONES),
        old_phone_browsers: regex(OLD_PHONE_BROWSERS),
        engines: regex(ENGINES),
        platforms: regex(PLATFORMS),
        compatible: regex(COMPATIBLE),
        models_of_apps: regex(MODELS_OF_APPS),
        crawlers: literals(&crawlers, false),
        programs: literals(&programs, true),
        expressions: regex(&expressions.collect::<Vec<_>>().join("|")),
    }
});

/// Builds the automatons now, so that the first click does not wait for them.
pub fn prepare() {
    LazyLock::force(&AGENTS);
}

/// Whether the agent is a person's browser.
pub fn is_person(agent: &str) -> bool {
    let agents = &*AGENTS;
    let agent = agent.trim();
    is_browser(agents, agent) && !is_listed(agents, &without_models(agents, agent))
}

fn is_listed(agents: &Agents, agent: &[u8]) -> bool {
    agents.crawlers.is_match(agent) || agents.programs.is_match(agent) || agents.expressions.is_match(agent)
}

/// Whether the agent has the form of a browser's.
fn is_browser(agents: &Agents, agent: &str) -> bool {
    let bytes = agent.as_bytes();
    if !agents.starts.is_match(bytes) {
        let is_old_phone = || agents.old_phones.is_match(bytes) && agents.old_phone_browsers.is_match(bytes);
        return agents.text_browsers.is_match(bytes) || is_old_phone();
    }
    if !agent.starts_with("Mozilla") {
        return true;
    }
    let (_, comment, _) = first_comment(agent);
    agents.engines.is_match(bytes)
        && agents.platforms.is_match(comment.as_bytes())
        && (!comment.starts_with("compatible") || agents.compatible.is_match(bytes))
}

/// The lines of a list that are no comments. Blanks at the ends belong to an entry.
fn entries(list: &str) -> impl Iterator<Item = &str> {
    list.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// The entries that are plain text, as text, and those that are expressions.
fn split<'a>(entries: impl Iterator<Item = &'a str>) -> (Vec<String>, Vec<&'a str>) {
    let (mut texts, mut expressions) = (Vec::new(), Vec::new());
    for entry in entries {
        match text(entry) {
            Some(text) => texts.push(text),
            None => expressions.push(entry),
        }
    }
    (texts, expressions)
}

/// The text that an expression stands for, if it stands for one only.
fn text(expression: &str) -> Option<String> {
    let mut text = String::new();
    let mut chars = expression.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next().filter(char::is_ascii_punctuation)?),
            '.' | '^' | '$' | '*' | '+' | '?' | '(' | ')' | '[' | ']' | '{' | '}' | '|' => return None,
            _ => text.push(c),
        }
    }
    Some(text)
}

#[expect(clippy::expect_used, reason = "the texts are constants, and a test builds the automaton")]
fn literals(texts: &[String], any_case: bool) -> AhoCorasick {
    AhoCorasick::builder().ascii_case_insensitive(any_case).build(texts).expect("the texts fit an automaton")
}

#[expect(clippy::expect_used, reason = "the expressions are constants, and a test compiles them")]
fn regex(expression: &str) -> Regex {
    RegexBuilder::new(expression).unicode(false).build().expect("the expression compiles")
}

/// The agent without the models of phones. A comment gives the model behind the system's name: `Android 7.0; M bot 60`. What
/// has a version there (`Storebot-Google/1.0`) is no model, unless it has a build.
fn without_models(agents: &Agents, agent: &str) -> Vec<u8> {
    let (before, comment, after) = first_comment(agent);
    let mut is_behind_system = false;
    let mut kept = Vec::with_capacity(agent.len());
    kept.extend(before.bytes());
    for part in comment.split_inclusive(';') {
        let name = part.trim_end_matches(';').trim();
        let is_model =
            !name.contains('@') && (!name.contains('/') || name.contains(" Build/") || name.starts_with("Build/"));
        if !(is_behind_system && is_model) {
            kept.extend(part.bytes());
        }
        is_behind_system |= SYSTEMS_OF_PHONES.iter().any(|system| name.starts_with(system));
    }
    kept.extend(after.bytes());
    agents.models_of_apps.replace_all(&kept, &b""[..]).into_owned()
}

/// What stands before the model of a phone.
const SYSTEMS_OF_PHONES: [&str; 8] =
    ["Android", "Adr ", "OpenHarmony", "HarmonyOS", "Mobile", "Tablet", "Tizen", "Phone"];

/// What stands up to the first bracket with it, the text within it, and the rest. Brackets may hold brackets.
fn first_comment(agent: &str) -> (&str, &str, &str) {
    let Some(start) = agent.find('(').map(|at| at + 1) else { return (agent, "", "") };
    let mut depth = 1_usize;
    for (at, byte) in agent.bytes().enumerate().skip(start) {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return (&agent[..start], &agent[start..at], &agent[at..]);
        }
    }
    (&agent[..start], &agent[start..], "")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn the_lists_compile_and_name_what_they_leave_out() {
        prepare();
        assert!(entries(CRAWLERS).count() > 1_000, "the source's list is whole");
        let crawlers: BTreeSet<_> = entries(CRAWLERS).collect();
        for browser in entries(BROWSERS) {
            assert!(crawlers.contains(browser), "{browser} is no entry of the source any more");
        }
    }

    /// The first lines say which release of the source the list is, and what its entries hash to.
    #[test]
    fn the_list_of_crawlers_is_what_its_source_gives() {
        let (head, list) = CRAWLERS.split_once("\n\n").unwrap();
        let said = head.lines().find_map(|line| line.strip_prefix("# SHA-256 of the entries: ")).unwrap();
        assert_eq!(hex::encode(Sha256::digest(list)), said, "edit programs.txt or browsers.txt, and not this list");
    }

    #[test]
    fn an_entry_is_text_or_an_expression() {
        for (entry, expected) in [
            ("bot", Some("bot")),
            (r"Googlebot\/", Some("Googlebot/")),
            (r"bnf\.fr_bot", Some("bnf.fr_bot")),
            (r"a\\b", Some(r"a\b")),
            (r"\d", None),
            (r"a\", None),
            ("^curl", None),
            ("[wW]get", None),
            ("a.c", None),
            ("a|b", None),
        ] {
            assert_eq!(text(entry).as_deref(), expected, "{entry}");
        }
        let (texts, expressions) = split(entries(CRAWLERS));
        assert!(texts.len() > 10 * expressions.len(), "{} texts, {} expressions", texts.len(), expressions.len());
    }

    #[test]
    fn the_model_of_a_phone_is_no_program() {
        for model in
            ["M bot 60", "M bot 60 Build/NRD90M", "CUBOT", "Robot", "Spider X", "WIKO FEVER", "Crawler 2", "KFbots"]
        {
            for system in ["Linux; Android 7.0", "Linux; U; Android 7.0; en-us", "Phone; OpenHarmony 5.0", "Mobile"] {
                let agent = |comment: &str, rest: &str| {
                    format!(
                        "Mozilla/5.0 ({comment}) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Mobile Safari/537.36{rest}"
                    )
                };
                let comment = format!("{system}; {model}; wv");
                assert!(is_person(&agent(&comment, "")), "{comment}");
                let app = format!(" Instagram 309.1.1.28.108 Android (24/7.0; 320dpi; {model}; mt6580; en_US; 5369)");
                assert!(is_person(&agent(&comment, &app)), "{comment} {app}");
                assert!(!is_person(&agent(&comment, " (compatible; Foobot/1.0)")), "{comment}");
                assert!(!is_person(&agent(&format!("{comment}; Foobot/1.0"), "")), "{comment}");
            }
        }
    }

    #[test]
    fn what_is_not_formed_as_a_browsers_agent_is_no_person() {
        for agent in [
            "",
            "Mozilla",
            "Mozilla/5.0",
            "Mozilla/5.0 (",
            "Mozilla/5.0 ()",
            "Mozilla/5.0 (compatible)",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64)",
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/120.0.0.0",
            "Mozilla/5.0 (Anything) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
            "Mozilla/5.0 (compatible; Linux) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36",
            "\"Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/129.0.0.0 Safari/537.36\"",
            "Chrome/129.0.0.0",
            "Nokia",
            "SamsungBrowser",
            "-",
            "null",
            "node",
        ] {
            assert!(!is_person(agent), "{agent}");
        }
    }

    proptest! {
        #[test]
        fn no_agent_makes_it_panic(agent in "(Mozilla/5\\.0 )?[();/ A-Za-zé.]{0,60}") {
            is_person(&agent);
        }
    }
}
