//! All connectors this process knows: the built-in files and those of the operator's directory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    path::Path,
    sync::Arc,
};

use url::Url;

use super::{
    Tool, check,
    digest::{binding, tool_digest},
    vars::{self, Vars},
};
use crate::domain::connector::{Connector, ConnectorId, HTTP_REQUEST};

/// The files in the binary. Their endpoints cannot change at run time.
const BUILT_IN: [(&str, &str); 4] = [
    ("acme-mail", include_str!("../../connectors/acme-mail.toml")),
    ("github", include_str!("../../connectors/github.toml")),
    ("gmail", include_str!("../../connectors/gmail.toml")),
    ("slack", include_str!("../../connectors/slack.toml")),
];

/// The one built-in connector that exists only where its provider runs (`postern dev`).
const ACME_MAIL: &str = "acme-mail";

/// What the catalogue is made of.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options<'a> {
    /// The origin of the demo provider, `http://127.0.0.1:<port>`; absent: Acme Mail is not in the catalogue.
    pub acme_mail_origin: Option<&'a str>,
    /// The operator's `connectors_dir`.
    pub dir: Option<&'a Path>,
    /// Origins that may be plain http. The demo provider's own is always among them.
    pub plain_http_allowed: &'a [String],
}

/// A connector file cannot be used. Nothing starts then.
#[derive(Debug, thiserror::Error)]
pub enum CatalogueError {
    /// A file or the directory cannot be read.
    #[error("cannot read {file}")]
    Read {
        /// Which.
        file: String,
        /// Why.
        source: io::Error,
    },
    /// A file is not what the format says.
    #[error("{file} is not a connector file: {message}")]
    Syntax {
        /// Which.
        file: String,
        /// Where and what.
        message: String,
    },
    /// A file says something that cannot be true or must not be.
    #[error("{file} cannot be used: {}", problems.join("; "))]
    Invalid {
        /// Which.
        file: String,
        /// Everything that is wrong.
        problems: Vec<String>,
    },
    /// Two files have one id, or one takes a built-in id.
    #[error("{file} takes the id {id}, which exists already")]
    Taken {
        /// Which file.
        file: String,
        /// Which id.
        id: String,
    },
    /// The demo provider's origin is not an origin.
    #[error("the origin of acme mail is not an http or https origin")]
    Origin,
}

/// All connectors, by id.
#[derive(Debug, Clone)]
pub struct Catalogue {
    connectors: BTreeMap<ConnectorId, Known>,
}

/// A connector with its digests. Nothing here changes while the process runs, so each is made once.
#[derive(Debug, Clone)]
struct Known {
    connector: Arc<Connector>,
    binding: [u8; 32],
    tools: BTreeMap<String, String>,
}

impl Known {
    /// `None` only if the definition has no canonical form.
    fn new(connector: Connector) -> Option<Self> {
        let binding = binding(&connector, &Vars::new())?;
        let names = connector.actions.iter().map(|action| action.name.as_str());
        let tools = names
            .chain([HTTP_REQUEST])
            .filter_map(|name| Some((name, Tool::find(&connector, name)?)))
            .map(|(name, tool)| Some((name.to_owned(), tool_digest(&connector, tool, &binding)?)))
            .collect::<Option<_>>()?;
        Some(Self {
            connector: Arc::new(connector),
            binding,
            tools,
        })
    }
}

impl Catalogue {
    /// Loads and checks every file.
    ///
    /// # Errors
    /// At the first file that cannot be used.
    pub fn load(options: &Options<'_>) -> Result<Self, CatalogueError> {
        let mut plain_http: BTreeSet<String> = options.plain_http_allowed.iter().cloned().collect();
        let mut catalogue = Self {
            connectors: BTreeMap::new(),
        };
        for (id, text) in BUILT_IN {
            if id != ACME_MAIL {
                catalogue.add(id, text, &plain_http)?;
            } else if let Some(origin) = options.acme_mail_origin {
                let text = at_origin(text, origin)?;
                plain_http.insert(origin.to_owned());
                catalogue.add(id, &text, &plain_http)?;
            }
        }
        if let Some(dir) = options.dir {
            for (id, text) in read_dir(dir)? {
                catalogue.add(&id, &text, &plain_http)?;
            }
        }
        Ok(catalogue)
    }

    /// The connector, if there is one.
    #[must_use]
    pub fn get(&self, id: &ConnectorId) -> Option<&Arc<Connector>> {
        self.connectors.get(id).map(|known| &known.connector)
    }

    /// What a person consents to at a connector (crypto §2); `None` if there is no such connector.
    #[must_use]
    pub fn binding(&self, id: &ConnectorId) -> Option<[u8; 32]> {
        self.connectors.get(id).map(|known| known.binding)
    }

    /// The `tool_digest` of an action (protocol §3) with a grant that was consented to under `binding`; `None` if there
    /// is no such tool or the connector's binding is another one by now.
    #[must_use]
    pub fn tool_digest(&self, id: &ConnectorId, tool: &str, binding: &[u8; 32]) -> Option<&str> {
        let known = self.connectors.get(id)?;
        let digest = known.tools.get(tool).map(String::as_str);
        digest.filter(|_| known.binding == *binding)
    }

    /// All of them, by id.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Connector>> {
        self.connectors.values().map(|known| &known.connector)
    }

    fn add(&mut self, file: &str, text: &str, plain_http: &BTreeSet<String>) -> Result<(), CatalogueError> {
        let file = format!("{file}.toml");
        let connector = parse(&file, text, plain_http)?;
        // Nobody is asked for a value yet: a variable is its default, and a file that needs more is refused, not left
        // with holes in its addresses.
        let connector = match vars::filled(&connector, &Vars::new()) {
            Ok(connector) => connector.into_owned(),
            Err(error) => {
                return Err(CatalogueError::Invalid {
                    file,
                    problems: vec![format!("{error}: only its default can fill it yet")],
                });
            }
        };
        let id = connector.id.clone();
        let Some(known) = Known::new(connector) else {
            return Err(CatalogueError::Invalid {
                file,
                problems: vec!["it has no canonical form".to_owned()],
            });
        };
        match self.connectors.insert(id.clone(), known) {
            None => Ok(()),
            Some(_) => Err(CatalogueError::Taken {
                file,
                id: id.to_string(),
            }),
        }
    }
}

/// Reads and checks one file.
pub(super) fn parse(
    file: &str,
    text: &str,
    plain_http: &BTreeSet<String>,
) -> Result<Connector, CatalogueError> {
    let connector: Connector = toml::from_str(text).map_err(|error| CatalogueError::Syntax {
        file: file.to_owned(),
        message: error.message().to_owned(),
    })?;
    let mut problems = check::problems(&connector, plain_http);
    if file != format!("{}.toml", connector.id) {
        problems.push("the id is not the file's name".to_owned());
    }
    if problems.is_empty() {
        Ok(connector)
    } else {
        Err(CatalogueError::Invalid {
            file: file.to_owned(),
            problems,
        })
    }
}

/// Puts the demo provider's origin into its file.
fn at_origin(text: &str, origin: &str) -> Result<String, CatalogueError> {
    let url = Url::parse(origin).map_err(|_| CatalogueError::Origin)?;
    // An origin has one spelling, and none of its characters means anything to TOML.
    if url.origin().ascii_serialization() != origin {
        return Err(CatalogueError::Origin);
    }
    let authority = vars::authority(&url).ok_or(CatalogueError::Origin)?;
    Ok(text
        .replace("{origin}", origin)
        .replace("{authority}", &authority))
}

/// The `*.toml` files of a directory: name without ending, and text.
fn read_dir(dir: &Path) -> Result<BTreeMap<String, String>, CatalogueError> {
    let failed = |path: &Path| {
        let file = path.display().to_string();
        move |source| CatalogueError::Read { file, source }
    };
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let path = entry.map_err(failed(dir))?.path();
        let (Some(stem), Some("toml")) = (
            path.file_stem().and_then(|stem| stem.to_str()),
            path.extension().and_then(|end| end.to_str()),
        ) else {
            continue;
        };
        if BUILT_IN.iter().any(|(id, _)| *id == stem) {
            // Also where Acme Mail itself is not loaded: nobody else is ever called that.
            return Err(CatalogueError::Taken {
                file: path.display().to_string(),
                id: stem.to_owned(),
            });
        }
        files.insert(stem.to_owned(), fs::read_to_string(&path).map_err(failed(&path))?);
    }
    Ok(files)
}
