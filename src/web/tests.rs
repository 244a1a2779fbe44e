//! Every page, with ordinary and with hostile names, held against the rules pages promise.
//!
//! With `POSTERN_RENDER_DIR` set, the pages are also written there as files, to look at and to run axe-core on.

mod contrast;
mod markup;
mod samples;

use markup::Markup;

use super::{Shown, assets};
use crate::domain::text::is_unseen;

fn pages() -> Vec<(String, String)> {
    let mut pages = samples::all(samples::Voice::Plain);
    pages.extend(samples::all(samples::Voice::Hostile));
    pages
}

fn each(claim: impl Fn(&Markup) -> Vec<String>) {
    let mut wrong = Vec::new();
    for (name, html) in pages() {
        match Markup::parse(&html) {
            Ok(markup) => wrong.extend(
                claim(&markup)
                    .into_iter()
                    .map(|problem| format!("{name}: {problem}")),
            ),
            Err(problem) => wrong.push(format!("{name}: {problem}")),
        }
    }
    let count = wrong.len();
    wrong.truncate(20);
    assert!(
        wrong.is_empty(),
        "{count} faults, the first:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn renders_every_page() {
    let pages = pages();
    assert!(pages.len() > 100, "{}", pages.len());
    if let Ok(folder) = std::env::var("POSTERN_RENDER_DIR") {
        let folder = std::path::Path::new(&folder);
        std::fs::create_dir_all(folder.join("assets")).unwrap();
        for asset in assets::ALL {
            std::fs::write(folder.join(asset.path.trim_start_matches('/')), asset.text).unwrap();
        }
        for (name, html) in &pages {
            std::fs::write(folder.join(format!("{name}.html")), html).unwrap();
        }
    }
}

/// What a receipt says of the apps, as text and as the bars' values.
fn receipt(name: &str) -> (String, Vec<(String, String)>) {
    let (_, html) = samples::all(samples::Voice::Plain)
        .into_iter()
        .find(|(page, _)| page == name)
        .unwrap_or_else(|| panic!("no page {name}"));
    let markup = Markup::parse(&html).unwrap();
    (markup.text(), markup.bars())
}

#[test]
fn a_receipt_shows_without_a_script_how_far_it_has_come() {
    let bar = |value: &str, max: &str| vec![(value.to_owned(), max.to_owned())];
    let (text, bars) = receipt("receipt-all");
    assert_eq!(bars, bar("3", "1200"));
    assert!(
        text.contains("3 of 1,200 connections ended at the app or given up"),
        "{text}"
    );
    assert!(text.contains("And 1,196 more connections"), "{text}");
    let (text, bars) = receipt("receipt-begun");
    assert_eq!(bars, bar("0", "1200"));
    assert!(
        text.contains("0 of 1,200 connections") && text.contains("still being made"),
        "{text}"
    );
}

#[test]
fn a_receipt_says_what_it_does_not_know_yet() {
    let (text, bars) = receipt("receipt-counting");
    assert!(bars.is_empty(), "a bar without an end: {bars:?}");
    for said in [
        "still being counted",
        "So far:",
        "at least 999,996 more connections",
    ] {
        assert!(text.contains(said), "{said}: {text}");
    }
    for name in ["receipt-counting", "receipt-begun"] {
        assert!(!receipt(name).0.contains("no connection to end"), "{name}");
    }
    let (text, bars) = receipt("receipt-agent");
    assert!(
        text.contains("There was no connection to end at an app") && bars.is_empty(),
        "{text}"
    );
}

#[test]
fn every_page_is_balanced() {
    each(|_| Vec::new());
}

#[test]
fn no_page_holds_script_style_or_a_frame() {
    each(Markup::active_content);
}

#[test]
fn no_page_loads_or_posts_to_another_origin() {
    each(Markup::foreign_addresses);
}

#[test]
fn every_posted_form_carries_the_csrf_field() {
    each(Markup::forms_without_csrf);
}

#[test]
fn every_page_has_one_heading_a_title_a_language_and_one_main() {
    each(Markup::frame_faults);
}

#[test]
fn headings_never_skip_a_level() {
    each(Markup::heading_faults);
}

#[test]
fn every_field_has_a_label_and_every_button_and_link_has_words() {
    each(Markup::unnamed_controls);
}

#[test]
fn every_reference_finds_its_one_target() {
    each(Markup::reference_faults);
}

#[test]
fn no_page_shows_a_character_that_cannot_be_seen() {
    each(|markup| {
        let seen = markup.shown_texts();
        seen.filter(|text| text.chars().any(|letter| letter != '\n' && is_unseen(letter)))
            .map(|text| format!("unseen character in {text:?}"))
            .collect()
    });
}

#[test]
fn a_long_name_does_not_make_a_long_page() {
    for (name, html) in samples::all(samples::Voice::Hostile) {
        assert!(html.len() < 150_000, "{name}: {} bytes", html.len());
    }
}

#[test]
fn the_connect_page_and_its_files_stay_under_fifty_kilobytes() {
    let (_, html) = samples::all(samples::Voice::Plain)
        .into_iter()
        .find(|(name, _)| name == "connect")
        .unwrap();
    let files: usize = assets::ALL.iter().map(|asset| asset.text.len()).sum();
    assert!(html.len() + files <= 50_000, "{}", html.len() + files);
}

#[test]
fn every_class_of_a_page_is_in_the_stylesheet() {
    // Ours and `name` in a sentence; a class nobody styles is a misspelt one.
    let unstyled = ["entry-body", "boxes", "permission-read", "permission-act"];
    each(|markup| {
        markup
            .classes()
            .filter(|class| {
                !unstyled.contains(class) && !assets::STYLESHEET.text.contains(&format!(".{class}"))
            })
            .map(|class| format!("class {class} is not in the stylesheet"))
            .collect()
    });
}

#[test]
fn the_checks_of_these_pages_can_fail() {
    let parse = |html: &str| Markup::parse(html).unwrap();
    for unbalanced in [
        "<p><b>x</p></b>",
        "<div>",
        "</div>",
        "<p><div>x</div></p>",
        "<a b=c>x</a>",
        "<p",
    ] {
        assert!(Markup::parse(unbalanced).is_err(), "{unbalanced}");
    }
    for active in [
        "<script>x</script>",
        "<p style=\"x\">x</p>",
        "<p onclick=\"x\">x</p>",
        "<iframe></iframe>",
    ] {
        assert_eq!(parse(active).active_content().len(), 1, "{active}");
    }
    for foreign in [
        "<a href=\"https://x.example/\">x</a>",
        "<a href=\"//x.example/\">x</a>",
        "<img src=\"https://x.example/\">",
        "<form action=\"https://x.example/\"></form>",
    ] {
        assert_eq!(parse(foreign).foreign_addresses().len(), 1, "{foreign}");
    }
    assert_eq!(
        parse("<form method=\"post\" action=\"/x\"></form>")
            .forms_without_csrf()
            .len(),
        1
    );
    assert_eq!(parse("<h1>a</h1><h3>b</h3>").heading_faults().len(), 1);
    assert!(
        !parse("<html><h1>a</h1><h1>b</h1></html>")
            .frame_faults()
            .is_empty()
    );
    for unnamed in [
        "<input type=\"text\">",
        "<select></select>",
        "<button></button>",
        "<a href=\"/x\"></a>",
    ] {
        assert_eq!(parse(unnamed).unnamed_controls().len(), 1, "{unnamed}");
    }
    for broken in [
        "<a href=\"#x\">x</a>",
        "<p id=\"x\">a</p><p id=\"x\">b</p>",
        "<label for=\"x\">x</label>",
    ] {
        assert_eq!(parse(broken).reference_faults().len(), 1, "{broken}");
    }
}

#[test]
fn outside_text_is_never_marked_safe() {
    // SECURITY: the only way around escaping in a template is the filter `safe` or an `escape` directive.
    let templates = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("templates/postern");
    let mut seen = 0;
    for folder in ["", "pages", "parts"] {
        for file in std::fs::read_dir(templates.join(folder)).unwrap() {
            let path = file.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "html") {
                let text = std::fs::read_to_string(&path).unwrap();
                assert!(
                    !text.contains("|safe") && !text.contains("| safe") && !text.contains("escape("),
                    "{path:?}"
                );
                seen += 1;
            }
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn the_refresh_of_the_continue_page_leads_to_the_provider_alone() {
    let (_, html) = samples::all(samples::Voice::Plain)
        .into_iter()
        .find(|(name, _)| name == "continue")
        .unwrap();
    let refresh = "<meta http-equiv=\"refresh\" content=\"0;url=http://127.0.0.1:7701/authorize?response_type=code&#38;";
    assert_eq!(html.matches("http-equiv").count(), 1);
    assert!(html.contains(refresh), "{html}");
}

#[test]
fn a_name_is_shown_in_full_where_it_is_ordinary() {
    let (_, html) = samples::all(samples::Voice::Plain)
        .into_iter()
        .find(|(name, _)| name == "confirm")
        .unwrap();
    assert!(
        html.contains(
            "<h1>Connect <bdi>ada@acme.example</bdi> as <bdi>Ada Lovelace</bdi> for <bdi>Acme</bdi></h1>"
        ),
        "{html}"
    );
    assert_eq!(Shown::new("Ada Lovelace").as_str(), "Ada Lovelace");
}
