//! A small, strict reader of the HTML we write, and the rules pages are held against.

/// One element in document order.
#[derive(Debug)]
pub(super) struct Element {
    name: String,
    attributes: Vec<(String, String)>,
    parents: Vec<usize>,
    text: String,
}

impl Element {
    fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(other, _)| other == name)
            .map(|(_, value)| value.as_str())
    }

    fn is(&self, names: &[&str]) -> bool {
        names.contains(&self.name.as_str())
    }
}

/// A page, read.
#[derive(Debug)]
pub(super) struct Markup(Vec<Element>);

impl Markup {
    /// Reads a page; refuses what a browser would have to repair.
    pub(super) fn parse(html: &str) -> Result<Self, String> {
        let mut elements: Vec<Element> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut rest = html;
        while let Some(start) = rest.find('<') {
            let (text, tail) = rest.split_at(start);
            for index in &open {
                elements[*index].text.push_str(&decoded(text));
            }
            let (inside, after) = tail.split_once('>').ok_or("a tag without an end")?;
            let inside = inside.strip_prefix('<').unwrap_or_default();
            rest = after;
            if inside.starts_with('!') {
                continue;
            }
            if let Some(name) = inside.strip_prefix('/') {
                let last = open.pop().ok_or_else(|| format!("</{name}> without a start"))?;
                if elements[last].name != name {
                    return Err(format!("<{}> ended by </{name}>", elements[last].name));
                }
                continue;
            }
            let self_closed = inside.ends_with('/');
            let element = element(inside.trim_end_matches('/'), open.clone())?;
            let in_paragraph = open.iter().any(|index| elements[*index].name == "p");
            if in_paragraph && element.is(BLOCKS) {
                return Err(format!("<{}> inside <p>", element.name));
            }
            let stays_open = !self_closed && !element.is(VOID);
            elements.push(element);
            if stays_open {
                open.push(elements.len() - 1);
            }
        }
        match open.pop() {
            Some(index) => Err(format!("<{}> without an end", elements[index].name)),
            None => Ok(Self(elements)),
        }
    }

    /// All of the text there is.
    pub(super) fn text(&self) -> String {
        let page = self.0.iter().find(|element| element.name == "body");
        page.map(|page| page.text.clone()).unwrap_or_default()
    }

    /// Value and maximum of each bar; one that does not say what it is about has no name for who cannot see it.
    pub(super) fn bars(&self) -> Vec<(String, String)> {
        let bars = self.0.iter().filter(|element| element.name == "progress");
        bars.map(|bar| {
            assert!(bar.attribute("aria-label").is_some_and(|label| !label.is_empty()));
            let number = |name| bar.attribute(name).unwrap_or_default().to_owned();
            (number("value"), number("max"))
        })
        .collect()
    }

    pub(super) fn active_content(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for element in &self.0 {
            if element.is(&["script", "style", "iframe", "object", "embed", "base", "img"]) {
                wrong.push(format!("<{}>", element.name));
            }
            for (name, _) in &element.attributes {
                if name == "style" || name.starts_with("on") || name == "autofocus" {
                    wrong.push(format!("<{} {name}>", element.name));
                }
            }
        }
        wrong
    }

    pub(super) fn foreign_addresses(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for element in &self.0 {
            for (name, value) in &element.attributes {
                let is_address = matches!(
                    name.as_str(),
                    "href" | "src" | "action" | "formaction" | "srcset" | "poster"
                );
                let is_local = value.starts_with('#') || (value.starts_with('/') && !value.starts_with("//"));
                let is_meant = element.name == "a" && element.attribute("rel") == Some("noreferrer");
                if is_address && !is_local && !is_meant {
                    wrong.push(format!("<{} {name}={value}>", element.name));
                }
            }
        }
        wrong
    }

    pub(super) fn forms_without_csrf(&self) -> Vec<String> {
        let posts = |form: &Element| form.name == "form" && form.attribute("method") == Some("post");
        self.0
            .iter()
            .enumerate()
            .filter(|(_, form)| posts(form))
            .filter(|(index, _)| {
                let fields = self.0.iter().filter(|field| {
                    field.parents.contains(index)
                        && field.attribute("name") == Some("csrf")
                        && field.attribute("type") == Some("hidden")
                        && field.attribute("value").is_some_and(|value| !value.is_empty())
                });
                fields.count() != 1
            })
            .map(|(_, form)| format!("form to {:?}", form.attribute("action")))
            .collect()
    }

    pub(super) fn frame_faults(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for once in ["html", "title", "h1", "main", "footer"] {
            let found: Vec<_> = self.0.iter().filter(|element| element.name == once).collect();
            if found.len() != 1 || found.iter().any(|element| element.text.trim().is_empty()) {
                wrong.push(format!("{} × <{once}>", found.len()));
            }
        }
        if !self
            .0
            .iter()
            .any(|element| element.name == "html" && element.attribute("lang") == Some("en"))
        {
            wrong.push("no language".to_owned());
        }
        if !self
            .0
            .iter()
            .any(|element| element.attribute("class") == Some("skip"))
        {
            wrong.push("no skip link".to_owned());
        }
        wrong
    }

    pub(super) fn heading_faults(&self) -> Vec<String> {
        let levels: Vec<u8> = self
            .0
            .iter()
            .filter(|element| element.is(&["h1", "h2", "h3", "h4", "h5", "h6"]))
            .map(|element| element.name.as_bytes()[1] - b'0')
            .collect();
        levels
            .windows(2)
            .filter(|pair| pair[1] > pair[0] + 1)
            .map(|pair| format!("h{} after h{}", pair[1], pair[0]))
            .collect()
    }

    pub(super) fn unnamed_controls(&self) -> Vec<String> {
        let labelled = |field: &Element| {
            field
                .parents
                .iter()
                .any(|parent| self.0[*parent].name == "label" && !self.0[*parent].text.trim().is_empty())
                || field.attribute("id").is_some_and(|id| {
                    self.0
                        .iter()
                        .any(|label| label.name == "label" && label.attribute("for") == Some(id))
                })
        };
        let mut wrong = Vec::new();
        for element in &self.0 {
            let is_field =
                element.is(&["input", "select", "textarea"]) && element.attribute("type") != Some("hidden");
            if is_field && !labelled(element) {
                wrong.push(format!(
                    "<{} name={:?}> without a label",
                    element.name,
                    element.attribute("name")
                ));
            }
            if element.is(&["a", "button", "summary", "legend"]) && element.text.trim().is_empty() {
                wrong.push(format!("<{}> without words", element.name));
            }
        }
        wrong
    }

    pub(super) fn reference_faults(&self) -> Vec<String> {
        let ids: Vec<&str> = self
            .0
            .iter()
            .filter_map(|element| element.attribute("id"))
            .collect();
        let mut wrong: Vec<String> = ids
            .iter()
            .enumerate()
            .filter(|(index, id)| ids[..*index].contains(id))
            .map(|(_, id)| format!("two of id {id}"))
            .collect();
        for element in &self.0 {
            for (name, value) in &element.attributes {
                let target = match name.as_str() {
                    "for" | "aria-labelledby" | "aria-describedby" => Some(value.as_str()),
                    "href" => value.strip_prefix('#'),
                    _ => None,
                };
                if let Some(target) = target.filter(|target| !ids.contains(target)) {
                    wrong.push(format!("nothing has id {target}"));
                }
            }
        }
        wrong
    }

    pub(super) fn shown_texts(&self) -> impl Iterator<Item = &str> {
        let attributes = self
            .0
            .iter()
            .filter(|element| element.attribute("type") != Some("hidden"));
        let attributes =
            attributes.flat_map(|element| element.attributes.iter().map(|(_, value)| value.as_str()));
        let innermost = self.0.iter().filter(|element| element.name != "textarea");
        innermost
            .filter(|element| element.is(&["bdi", "title", "option", "span"]))
            .map(|element| element.text.as_str())
            .chain(attributes)
    }

    pub(super) fn classes(&self) -> impl Iterator<Item = &str> {
        self.0
            .iter()
            .filter_map(|element| element.attribute("class"))
            .flat_map(str::split_whitespace)
    }
}

fn element(inside: &str, parents: Vec<usize>) -> Result<Element, String> {
    let (name, mut rest) = inside.split_once(char::is_whitespace).unwrap_or((inside, ""));
    if name.is_empty()
        || !name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
    {
        return Err(format!("not an element: <{inside}>"));
    }
    let mut attributes = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(Element {
                name: name.to_owned(),
                attributes,
                parents,
                text: String::new(),
            });
        }
        let end = rest
            .find(|letter: char| letter == '=' || letter.is_whitespace())
            .unwrap_or(rest.len());
        let (attribute, tail) = rest.split_at(end);
        if !attribute
            .chars()
            .all(|letter| letter.is_ascii_alphabetic() || letter == '-')
        {
            return Err(format!("not an attribute in <{inside}>"));
        }
        let Some(quoted) = tail.strip_prefix('=') else {
            attributes.push((attribute.to_owned(), String::new()));
            rest = tail;
            continue;
        };
        let (value, tail) = quoted
            .strip_prefix('"')
            .and_then(|quoted| quoted.split_once('"'))
            .ok_or_else(|| format!("an unquoted value in <{inside}>"))?;
        if attributes
            .iter()
            .any(|(other, _): &(String, String)| other == attribute)
        {
            return Err(format!("{attribute} twice in <{inside}>"));
        }
        attributes.push((attribute.to_owned(), decoded(value)));
        rest = tail;
    }
}

fn decoded(text: &str) -> String {
    text.replace("&#60;", "<")
        .replace("&#62;", ">")
        .replace("&#34;", "\"")
        .replace("&#39;", "'")
        .replace("&#38;", "&")
}

const VOID: &[&str] = &["meta", "link", "input", "br", "hr", "img"];
const BLOCKS: &[&str] = &[
    "p", "div", "ul", "ol", "dl", "form", "section", "h1", "h2", "h3", "fieldset", "table", "details", "nav",
    "header",
];
