//! The people who have an Acme Mail account.

/// One account.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) email: &'static str,
    pub(super) name: &'static str,
    /// What `userinfo` calls this account for ever, whatever its address becomes.
    pub(super) subject: &'static str,
}

/// Every account there is.
pub(super) const ALL: [Account; 3] = [
    Account {
        email: "ada@acme.example",
        name: "Ada Byron",
        subject: "acct-5f1c27be90d34a68",
    },
    Account {
        email: "ben@acme.example",
        name: "Ben Okafor",
        subject: "acct-c8e2714ab35d0f96",
    },
    Account {
        email: "other@else.example",
        name: "Robin Else",
        subject: "acct-09d7f3a1e6428bc5",
    },
];

/// The account with this address.
pub(super) fn find(email: &str) -> Option<&'static Account> {
    ALL.iter().find(|account| account.email == email)
}
