//! Characters that nobody sees: what copying leaves at the ends of an address or a tag, and what makes two that look the same differ.
//!
//! They are those of Unicode's categories Cf (but for the marks of number signs, which are drawn), Zs, Zl and Zp beyond ASCII, the
//! fillers, and the block of tags. Selectors of a glyph's form (U+FE0F) are none: they belong to the emoji before them.

use std::fmt;

/// What Unicode calls each, sorted. Taken from Unicode 15.
const NAMES: [(char, &str); 86] = [
    ('\u{a0}', "NO-BREAK SPACE"),
    ('\u{ad}', "SOFT HYPHEN"),
    ('\u{34f}', "COMBINING GRAPHEME JOINER"),
    ('\u{61c}', "ARABIC LETTER MARK"),
    ('\u{115f}', "HANGUL CHOSEONG FILLER"),
    ('\u{1160}', "HANGUL JUNGSEONG FILLER"),
    ('\u{1680}', "OGHAM SPACE MARK"),
    ('\u{17b4}', "KHMER VOWEL INHERENT AQ"),
    ('\u{17b5}', "KHMER VOWEL INHERENT AA"),
    ('\u{180e}', "MONGOLIAN VOWEL SEPARATOR"),
    ('\u{2000}', "EN QUAD"),
    ('\u{2001}', "EM QUAD"),
    ('\u{2002}', "EN SPACE"),
    ('\u{2003}', "EM SPACE"),
    ('\u{2004}', "THREE-PER-EM SPACE"),
    ('\u{2005}', "FOUR-PER-EM SPACE"),
    ('\u{2006}', "SIX-PER-EM SPACE"),
    ('\u{2007}', "FIGURE SPACE"),
    ('\u{2008}', "PUNCTUATION SPACE"),
    ('\u{2009}', "THIN SPACE"),
    ('\u{200a}', "HAIR SPACE"),
    ('\u{200b}', "ZERO WIDTH SPACE"),
    ('\u{200c}', "ZERO WIDTH NON-JOINER"),
    ('\u{200d}', "ZERO WIDTH JOINER"),
    ('\u{200e}', "LEFT-TO-RIGHT MARK"),
    ('\u{200f}', "RIGHT-TO-LEFT MARK"),
    ('\u{2028}', "LINE SEPARATOR"),
    ('\u{2029}', "PARAGRAPH SEPARATOR"),
    ('\u{202a}', "LEFT-TO-RIGHT EMBEDDING"),
    ('\u{202b}', "RIGHT-TO-LEFT EMBEDDING"),
    ('\u{202c}', "POP DIRECTIONAL FORMATTING"),
    ('\u{202d}', "LEFT-TO-RIGHT OVERRIDE"),
    ('\u{202e}', "RIGHT-TO-LEFT OVERRIDE"),
    ('\u{202f}', "NARROW NO-BREAK SPACE"),
    ('\u{205f}', "MEDIUM MATHEMATICAL SPACE"),
    ('\u{2060}', "WORD JOINER"),
    ('\u{2061}', "FUNCTION APPLICATION"),
    ('\u{2062}', "INVISIBLE TIMES"),
    ('\u{2063}', "INVISIBLE SEPARATOR"),
    ('\u{2064}', "INVISIBLE PLUS"),
    ('\u{2066}', "LEFT-TO-RIGHT ISOLATE"),
    ('\u{2067}', "RIGHT-TO-LEFT ISOLATE"),
    ('\u{2068}', "FIRST STRONG ISOLATE"),
    ('\u{2069}', "POP DIRECTIONAL ISOLATE"),
    ('\u{206a}', "INHIBIT SYMMETRIC SWAPPING"),
    ('\u{206b}', "ACTIVATE SYMMETRIC SWAPPING"),
    ('\u{206c}', "INHIBIT ARABIC FORM SHAPING"),
    ('\u{206d}', "ACTIVATE ARABIC FORM SHAPING"),
    ('\u{206e}', "NATIONAL DIGIT SHAPES"),
    ('\u{206f}', "NOMINAL DIGIT SHAPES"),
    ('\u{2800}', "BRAILLE PATTERN BLANK"),
    ('\u{3000}', "IDEOGRAPHIC SPACE"),
    ('\u{3164}', "HANGUL FILLER"),
    ('\u{feff}', "ZERO WIDTH NO-BREAK SPACE"),
    ('\u{ffa0}', "HALFWIDTH HANGUL FILLER"),
    ('\u{fff9}', "INTERLINEAR ANNOTATION ANCHOR"),
    ('\u{fffa}', "INTERLINEAR ANNOTATION SEPARATOR"),
    ('\u{fffb}', "INTERLINEAR ANNOTATION TERMINATOR"),
    ('\u{13430}', "EGYPTIAN HIEROGLYPH VERTICAL JOINER"),
    ('\u{13431}', "EGYPTIAN HIEROGLYPH HORIZONTAL JOINER"),
    ('\u{13432}', "EGYPTIAN HIEROGLYPH INSERT AT TOP START"),
    ('\u{13433}', "EGYPTIAN HIEROGLYPH INSERT AT BOTTOM START"),
    ('\u{13434}', "EGYPTIAN HIEROGLYPH INSERT AT TOP END"),
    ('\u{13435}', "EGYPTIAN HIEROGLYPH INSERT AT BOTTOM END"),
    ('\u{13436}', "EGYPTIAN HIEROGLYPH OVERLAY MIDDLE"),
    ('\u{13437}', "EGYPTIAN HIEROGLYPH BEGIN SEGMENT"),
    ('\u{13438}', "EGYPTIAN HIEROGLYPH END SEGMENT"),
    ('\u{13439}', "EGYPTIAN HIEROGLYPH INSERT AT MIDDLE"),
    ('\u{1343a}', "EGYPTIAN HIEROGLYPH INSERT AT TOP"),
    ('\u{1343b}', "EGYPTIAN HIEROGLYPH INSERT AT BOTTOM"),
    ('\u{1343c}', "EGYPTIAN HIEROGLYPH BEGIN ENCLOSURE"),
    ('\u{1343d}', "EGYPTIAN HIEROGLYPH END ENCLOSURE"),
    ('\u{1343e}', "EGYPTIAN HIEROGLYPH BEGIN WALLED ENCLOSURE"),
    ('\u{1343f}', "EGYPTIAN HIEROGLYPH END WALLED ENCLOSURE"),
    ('\u{1bca0}', "SHORTHAND FORMAT LETTER OVERLAP"),
    ('\u{1bca1}', "SHORTHAND FORMAT CONTINUING OVERLAP"),
    ('\u{1bca2}', "SHORTHAND FORMAT DOWN STEP"),
    ('\u{1bca3}', "SHORTHAND FORMAT UP STEP"),
    ('\u{1d173}', "MUSICAL SYMBOL BEGIN BEAM"),
    ('\u{1d174}', "MUSICAL SYMBOL END BEAM"),
    ('\u{1d175}', "MUSICAL SYMBOL BEGIN TIE"),
    ('\u{1d176}', "MUSICAL SYMBOL END TIE"),
    ('\u{1d177}', "MUSICAL SYMBOL BEGIN SLUR"),
    ('\u{1d178}', "MUSICAL SYMBOL END SLUR"),
    ('\u{1d179}', "MUSICAL SYMBOL BEGIN PHRASE"),
    ('\u{1d17a}', "MUSICAL SYMBOL END PHRASE"),
];

/// The zero-width joiners, which change how their neighbours are drawn: in Persian, in Indic scripts, in emoji.
const JOINERS: [char; 2] = ['\u{200c}', '\u{200d}'];

/// A character that nobody sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Invisible(char);

impl Invisible {
    /// The first in `text`.
    pub fn first_in(text: &str) -> Option<Self> {
        text.chars().find(|c| is_invisible(*c)).map(Self)
    }

    /// The first in `text` that has no part in how words and emoji are written.
    pub fn first_in_words(text: &str) -> Option<Self> {
        text.chars().find(|c| is_invisible(*c) && !JOINERS.contains(c) && !is_tag(*c)).map(Self)
    }
}

impl fmt::Display for Invisible {
    /// As Unicode writes it: `U+200B ZERO WIDTH SPACE`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "U+{:04X} {}", u32::from(self.0), name(self.0).unwrap_or("TAG CHARACTER"))
    }
}

/// Whether nobody sees `c`. A space of ASCII and control characters are not meant.
pub fn is_invisible(c: char) -> bool {
    !c.is_ascii() && (is_tag(c) || name(c).is_some())
}

/// `text` without spaces and what nobody sees at its ends; nothing, where there is nothing else. Tags at the end belong to a flag.
pub fn trimmed(text: &str) -> &str {
    match text.chars().all(|c| c == ' ' || is_invisible(c)) {
        true => "",
        false => text.trim_matches(|c| c == ' ' || (is_invisible(c) && !is_tag(c))),
    }
}

fn is_tag(c: char) -> bool {
    matches!(c, '\u{e0000}'..='\u{e0fff}')
}

fn name(c: char) -> Option<&'static str> {
    NAMES.binary_search_by_key(&c, |(known, _)| *known).ok().and_then(|at| NAMES.get(at)).map(|(_, name)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_has_no_character_of_ascii() {
        assert!(
            NAMES.is_sorted_by(|(a, _), (b, _)| a < b) && NAMES.iter().all(|(c, _)| !c.is_ascii() && is_invisible(*c))
        );
    }

    #[test]
    fn what_nobody_sees_is_named_and_what_is_drawn_is_not() {
        let check = |c: char, expected: Option<&str>| {
            let found = Invisible::first_in(&format!("a{c}b")).map(|found| found.to_string());
            assert_eq!(found.as_deref(), expected, "{c:?}");
        };
        check('\u{200b}', Some("U+200B ZERO WIDTH SPACE"));
        check('\u{200e}', Some("U+200E LEFT-TO-RIGHT MARK"));
        check('\u{ad}', Some("U+00AD SOFT HYPHEN"));
        check('\u{a0}', Some("U+00A0 NO-BREAK SPACE"));
        check('\u{feff}', Some("U+FEFF ZERO WIDTH NO-BREAK SPACE"));
        check('\u{202e}', Some("U+202E RIGHT-TO-LEFT OVERRIDE"));
        check('\u{3164}', Some("U+3164 HANGUL FILLER"));
        check('\u{e0041}', Some("U+E0041 TAG CHARACTER"));
        for drawn in [' ', 'a', '\u{fe0f}', '\u{301}', '\u{600}', '\u{2764}', '-'] {
            check(drawn, None);
        }
    }

    #[test]
    fn whatever_is_white_space_beyond_ascii_is_in_the_table() {
        let missing = ('\u{a0}'..=char::MAX).filter(|c| c.is_whitespace() && !is_invisible(*c));
        assert_eq!(missing.collect::<String>(), "");
    }

    #[test]
    fn joiners_and_flags_are_part_of_words() {
        for word in
            ["\u{645}\u{6cc}\u{200c}\u{62e}", "\u{1f468}\u{200d}\u{1f469}", "\u{1f3f4}\u{e0067}\u{e0062}\u{e007f}"]
        {
            assert!(Invisible::first_in(word).is_some() && Invisible::first_in_words(word).is_none(), "{word:?}");
        }
        assert!(Invisible::first_in_words("a\u{200b}b").is_some());
    }
}
