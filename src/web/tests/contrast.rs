//! WCAG 2.2 §1.4.3 and §1.4.11 over the colours of the stylesheet, in light and in dark.

use std::collections::BTreeMap;

use super::assets::STYLESHEET;

/// Words on a surface: at least 4.5 to 1.
const WORDS: &[(&str, &str)] = &[
    ("ink", "page"),
    ("ink", "surface"),
    ("ink", "sunken"),
    ("ink", "accent-wash"),
    ("ink", "warn-wash"),
    ("ink", "good-wash"),
    ("ink", "bad-wash"),
    ("ink", "plain-wash"),
    ("ink-soft", "page"),
    ("ink-soft", "surface"),
    ("ink-soft", "sunken"),
    ("ink-soft", "accent-wash"),
    ("ink-soft", "warn-wash"),
    ("ink-soft", "plain-wash"),
    ("accent", "page"),
    ("accent", "surface"),
    ("accent", "accent-wash"),
    ("accent-strong", "accent-wash"),
    ("accent-ink", "accent"),
    ("accent-ink", "accent-strong"),
    ("bad-ink", "bad"),
    ("bad-ink", "bad-strong"),
    ("good", "good-wash"),
    ("warn", "warn-wash"),
    ("bad", "bad-wash"),
    ("bad", "surface"),
    ("bad", "page"),
];

/// Edges of controls and focus rings: at least 3 to 1.
const EDGES: &[(&str, &str)] = &[
    ("edge", "page"),
    ("edge", "surface"),
    ("edge", "sunken"),
    ("accent", "page"),
    ("accent", "surface"),
    ("bad", "surface"),
];

#[test]
fn every_colour_pair_has_enough_contrast_in_light_and_dark() {
    let (light, dark) = palettes(STYLESHEET.text);
    let mut wrong = Vec::new();
    for (name, palette) in [("light", &light), ("dark", &dark)] {
        for (pairs, least) in [(WORDS, 4.5), (EDGES, 3.0)] {
            for (ink, paper) in pairs {
                let ratio = contrast(palette[*ink], palette[*paper]);
                if ratio < least {
                    wrong.push(format!("{name}: {ink} on {paper} is {ratio:.2}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn contrast_is_counted_as_wcag_counts_it() {
    assert!((contrast([0, 0, 0], [255, 255, 255]) - 21.0).abs() < 0.001);
    assert!((contrast([0x77, 0x77, 0x77], [255, 255, 255]) - 4.478).abs() < 0.001);
}

type Palette = BTreeMap<String, [u8; 3]>;

fn palettes(css: &str) -> (Palette, Palette) {
    let (before, after) = css.split_once("prefers-color-scheme: dark").unwrap();
    let read = |text: &str| -> Palette {
        let block = text.split_once(":root {").unwrap().1.split_once('}').unwrap().0;
        block
            .lines()
            .filter_map(|line| {
                line.trim()
                    .strip_prefix("--")?
                    .strip_suffix(';')?
                    .split_once(": #")
            })
            .map(|(name, hex)| {
                let part = |at: usize| u8::from_str_radix(hex.get(at..at + 2).unwrap(), 16).unwrap();
                (name.to_owned(), [part(0), part(2), part(4)])
            })
            .collect()
    };
    (read(before), read(after))
}

fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

fn luminance(colour: [u8; 3]) -> f64 {
    let [red, green, blue] = colour.map(|part| {
        let part = f64::from(part) / 255.0;
        if part <= 0.04045 {
            part / 12.92
        } else {
            ((part + 0.055) / 1.055).powf(2.4)
        }
    });
    0.2126 * red + 0.7152 * green + 0.0722 * blue
}
