use postern::{
    crypto::jwk::PinnedKey,
    domain::EntryId,
    release::{Expected, OwnDecision, verify},
};

fn keep(own: OwnDecision, key: &PinnedKey, expected: &Expected<'_>, entry: EntryId) -> String {
    let (given_away, _) = own.into_text();
    let _ = verify::own(own, key, expected, entry); //~ E0382 use of moved value: `own`: value used here after move
    given_away
}

fn main() {}
