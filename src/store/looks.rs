//! The lane of looks: what refreshes have to know beforehand, read in one snapshot for many grants.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde::Serialize;

use crate::{
    crypto::OdkRecord,
    domain::{GrantId, KeyId, OrgId, Time, connector::ConnectorId, grant::Grant},
};

use super::{
    ConnectorClientRow, SecretKind, SecretRow, Store, StoreError,
    grants::{grant_of, read_opt_secret},
    keys::odk_of,
    lane::{Lane, Patience, Work},
    policies::client_of,
    sql::{Tx, json},
    waits::{LONGEST_LEASE, is_on},
};

/// What is known of a grant before its provider is asked for a token.
#[derive(Debug, Clone)]
pub struct Look {
    /// The grant, floors applied.
    pub grant: Grant,
    /// The token that there is.
    pub current: Option<SecretRow>,
    /// What the provider would be asked with.
    pub refresh_token: Option<SecretRow>,
    /// Whether somebody is asking.
    pub is_held: bool,
    /// Whether somebody was asking and never said what came of it.
    pub is_left: bool,
    /// What its org's grants have in common.
    pub org: Arc<OrgRows>,
    /// The database's time of all this.
    pub now: Time,
}

/// What refreshes of one org have in common.
#[derive(Debug, Default)]
pub struct OrgRows {
    current_odk: Option<KeyId>,
    odks: HashMap<KeyId, OdkRecord>,
    clients: BTreeMap<ConnectorId, ConnectorClientRow>,
}

impl OrgRows {
    /// The data key for new secrets.
    ///
    /// # Errors
    /// When the org has none.
    pub fn current_odk(&self) -> Result<&OdkRecord, StoreError> {
        self.current_odk.map_or(Err(NO_ODK), |id| self.odk(id))
    }

    /// The data key that a secret was sealed under.
    ///
    /// # Errors
    /// When it is gone.
    pub fn odk(&self, id: KeyId) -> Result<&OdkRecord, StoreError> {
        self.odks.get(&id).ok_or(NO_ODK)
    }

    /// The org's client at a connector.
    #[must_use]
    pub fn client(&self, connector: &ConnectorId) -> Option<&ConnectorClientRow> {
        self.clients.get(connector)
    }
}

/// Where looks are handed in. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Looks(Lane<Looking>);

impl Looks {
    /// Starts the lane; it ends when nobody can hand anything in any more.
    #[must_use]
    pub fn start(store: Store) -> Self {
        Self(Lane::start(Looking(store)))
    }

    /// Looks at a grant and its secret of one kind, together with whatever else waits; `None` if there is no such grant.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn look(
        &self,
        org: OrgId,
        grant: GrantId,
        kind: SecretKind,
    ) -> Result<Option<Look>, StoreError> {
        self.0.hand_in((org, grant, kind)).await
    }
}

#[derive(Debug)]
struct Looking(Store);

impl Work for Looking {
    type Ask = (OrgId, GrantId, SecretKind);
    type Answer = Option<Look>;

    fn org(ask: &Self::Ask) -> OrgId {
        ask.0
    }

    /// A reader is in nobody's way, and nobody in its.
    async fn all(&self, asks: &[Self::Ask], _: Patience) -> Result<Vec<Option<Look>>, StoreError> {
        let orgs = Self::orgs(asks);
        self.0.read_orgs(&orgs).await?.looks(&orgs, asks).await
    }
}

impl Tx {
    async fn looks(
        &mut self,
        orgs: &[OrgId],
        asks: &[(OrgId, GrantId, SecretKind)],
    ) -> Result<Vec<Option<Look>>, StoreError> {
        #[derive(Serialize)]
        struct Ask(OrgId, GrantId, String);

        let sql = self.connection.refresh_sql();
        let rows: Vec<Ask> = asks
            .iter()
            .map(|(org, grant, kind)| Ask(*org, *grant, kind.to_string()))
            .collect();
        let mut found = Vec::with_capacity(asks.len());
        for row in self.rows(sql.looks, vec![json(&rows)]).await? {
            let mut fields = row.fields("grants");
            let place = usize::try_from(fields.count()?).map_err(|_| fields.bad())?;
            let grant = grant_of(&mut fields)?;
            let current = read_opt_secret(&mut fields)?;
            let refresh_token = read_opt_secret(&mut fields)?;
            let until = fields.time()?;
            let is_held = is_on(until, self.now, LONGEST_LEASE);
            let is_left = !is_held && until > GIVEN_BACK;
            found.push((place, grant, current, refresh_token, is_held, is_left));
        }
        let under = found.iter().filter_map(|look| Some(look.3.as_ref()?.sealed.odk));
        let orgs = self.org_rows(orgs, under.collect()).await?;
        let mut looks = vec![None; asks.len()];
        for (place, grant, current, refresh_token, is_held, is_left) in found {
            let look = Look {
                org: orgs.get(&grant.org).map(Arc::clone).unwrap_or_default(),
                grant,
                current,
                refresh_token,
                is_held,
                is_left,
                now: self.now,
            };
            if let Some(slot) = looks.get_mut(place) {
                *slot = Some(look);
            }
        }
        Ok(looks)
    }

    /// The clients of orgs, and the data keys they seal under and, of the others, those that are asked for.
    async fn org_rows(
        &mut self,
        orgs: &[OrgId],
        mut under: BTreeSet<KeyId>,
    ) -> Result<HashMap<OrgId, Arc<OrgRows>>, StoreError> {
        let sql = self.connection.refresh_sql();
        let mut found: HashMap<OrgId, OrgRows> = HashMap::with_capacity(orgs.len());
        for row in self.rows(sql.clients, vec![json(&orgs)]).await? {
            let mut fields = row.fields("connector_clients");
            let org = fields.parse()?;
            let client = client_of(&mut fields)?;
            under.extend(client.secret.as_ref().map(|secret| secret.odk));
            let rows = found.entry(org).or_default();
            rows.clients.insert(client.connector.clone(), client);
        }
        for row in self.rows(sql.odks, vec![json(&orgs), json(&under)]).await? {
            let mut fields = row.fields("odks");
            let (org, is_in_use) = (fields.parse()?, fields.flag()?);
            let odk = odk_of(Some(org), &mut fields)?;
            let rows = found.entry(org).or_default();
            // The newest comes first.
            if is_in_use && rows.current_odk.is_none() {
                rows.current_odk = Some(odk.id);
            }
            rows.odks.insert(odk.id, odk);
        }
        Ok(found
            .into_iter()
            .map(|(org, rows)| (org, Arc::new(rows)))
            .collect())
    }
}

/// When a lease ends that was given back, or never claimed.
const GIVEN_BACK: Time = Time::from_unix_micros(0);

const NO_ODK: StoreError = StoreError::Inconsistent { table: "odks" };
