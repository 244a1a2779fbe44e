//! Statements, parameters and rows, whatever the database behind.

use std::{sync::Arc, time::Duration};

use crate::domain::{
    AgentId, ApprovalId, ConnectSessionId, DecisionId, DelegationId, EngineId, EntryId, GrantId, HandleId,
    KeyId, OrgId, RevocationId, ServiceId, Time, UserId, connector::ConnectorId,
};

use super::{StoreError, engine::Connection, vigil::Journal, writers::Begun};

/// A transaction. Dropping it without [`Tx::commit`] undoes everything done.
#[derive(Debug)]
pub struct Tx {
    pub(super) connection: Connection,
    pub(super) now: Time,
    pub(super) writer: String,
    /// What to remember once this is committed; only writing transactions have one.
    pub(super) journal: Option<Journal>,
    /// Where this writer has begun; `None`: it writes no entries.
    pub(super) begun: Option<Arc<Begun>>,
    /// Where it begins with this transaction.
    pub(super) starting: Vec<OrgId>,
}

impl Tx {
    /// Over what was begun.
    pub(super) fn over(
        (connection, now): (Connection, Time),
        writer: String,
        journal: Option<Journal>,
    ) -> Self {
        Self {
            connection,
            now,
            writer,
            journal,
            begun: None,
            starting: Vec::new(),
        }
    }

    /// Makes everything done durable.
    ///
    /// # Errors
    /// When the commit fails: then nothing was done. After [`StoreError::Undecided`] it may have been, or be done yet; or it was,
    /// and the directory that has to hear of it before anybody else does hangs.
    pub async fn commit(self) -> Result<(), StoreError> {
        self.connection.commit().await?;
        let kept = match self.journal {
            Some(journal) => journal.keep(&self.writer).await,
            None => Ok(()),
        };
        if let Some(begun) = self.begun {
            begun.add(self.starting, &self.writer);
        }
        kept
    }

    /// Lets each statement of this transaction take longer than others may: for counting what nobody waits for.
    ///
    /// # Errors
    /// When the database is unavailable.
    pub async fn allow_time(&mut self, each: Duration) -> Result<(), StoreError> {
        self.connection.allow_time(each).await
    }

    #[cfg(feature = "bench")]
    pub(super) async fn rollback(self) -> Result<(), StoreError> {
        self.connection.rollback().await?;
        if let Some(begun) = self.begun {
            begun.add(self.starting, &self.writer);
        }
        Ok(())
    }

    pub(super) async fn execute(&mut self, sql: &'static str, params: Vec<Value>) -> Result<u64, StoreError> {
        self.connection.execute(sql, params).await
    }

    /// Runs a statement that must change exactly one row.
    pub(super) async fn change(
        &mut self,
        table: &'static str,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<(), StoreError> {
        match self.execute(sql, params).await? {
            1 => Ok(()),
            _ => Err(StoreError::Inconsistent { table }),
        }
    }

    pub(super) async fn rows(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Vec<Row>, StoreError> {
        self.connection.rows(sql, params).await
    }

    pub(super) async fn row(
        &mut self,
        sql: &'static str,
        params: Vec<Value>,
    ) -> Result<Option<Row>, StoreError> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }
}

/// A value going in or coming out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Null,
    Int(i64),
    Text(String),
    Blob(Vec<u8>),
}

impl Value {
    pub(super) fn into_int(self) -> Option<i64> {
        match self {
            Self::Int(int) => Some(int),
            _ => None,
        }
    }

    pub(super) fn into_text(self) -> Option<String> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn into_blob(self) -> Option<Vec<u8>> {
        match self {
            Self::Blob(bytes) => Some(bytes),
            _ => None,
        }
    }
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Int,
    Text,
    Blob,
}

/// One row, in the order of its `SELECT` list.
#[derive(Debug)]
pub(super) struct Row(pub(super) Vec<Value>);

impl Row {
    /// Reads the row from left to right; `table` names it in errors.
    pub(super) fn fields(self, table: &'static str) -> Fields {
        Fields {
            table,
            values: self.0.into_iter(),
        }
    }
}

/// The values of a row, from left to right.
#[derive(Debug)]
pub(super) struct Fields {
    table: &'static str,
    values: std::vec::IntoIter<Value>,
}

impl Fields {
    pub(super) fn bad(&self) -> StoreError {
        StoreError::Inconsistent { table: self.table }
    }

    pub(super) fn opt_text(&mut self) -> Result<Option<String>, StoreError> {
        match self.values.next() {
            Some(Value::Text(text)) => Ok(Some(text)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.bad()),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, StoreError> {
        self.opt_text()?.ok_or_else(|| self.bad())
    }

    pub(super) fn opt_int(&mut self) -> Result<Option<i64>, StoreError> {
        match self.values.next() {
            Some(Value::Int(int)) => Ok(Some(int)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.bad()),
        }
    }

    pub(super) fn int(&mut self) -> Result<i64, StoreError> {
        self.opt_int()?.ok_or_else(|| self.bad())
    }

    pub(super) fn count(&mut self) -> Result<u64, StoreError> {
        let int = self.int()?;
        u64::try_from(int).map_err(|_| self.bad())
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        Ok(self.int()? != 0)
    }

    pub(super) fn time(&mut self) -> Result<Time, StoreError> {
        self.int().map(Time::from_unix_micros)
    }

    pub(super) fn opt_time(&mut self) -> Result<Option<Time>, StoreError> {
        Ok(self.opt_int()?.map(Time::from_unix_micros))
    }

    pub(super) fn opt_blob(&mut self) -> Result<Option<Vec<u8>>, StoreError> {
        match self.values.next() {
            Some(Value::Blob(bytes)) => Ok(Some(bytes)),
            Some(Value::Null) => Ok(None),
            _ => Err(self.bad()),
        }
    }

    pub(super) fn blob(&mut self) -> Result<Vec<u8>, StoreError> {
        self.opt_blob()?.ok_or_else(|| self.bad())
    }

    pub(super) fn hash(&mut self) -> Result<[u8; 32], StoreError> {
        let blob = self.blob()?;
        blob.try_into().map_err(|_| self.bad())
    }

    pub(super) fn opt_hash(&mut self) -> Result<Option<[u8; 32]>, StoreError> {
        let Some(blob) = self.opt_blob()? else {
            return Ok(None);
        };
        blob.try_into().map(Some).map_err(|_| self.bad())
    }

    pub(super) fn parse<T: std::str::FromStr>(&mut self) -> Result<T, StoreError> {
        let text = self.text()?;
        text.parse().map_err(|_| self.bad())
    }

    pub(super) fn opt_parse<T: std::str::FromStr>(&mut self) -> Result<Option<T>, StoreError> {
        let Some(text) = self.opt_text()? else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| self.bad())
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(&mut self) -> Result<T, StoreError> {
        let text = self.text()?;
        serde_json::from_str(&text).map_err(|_| self.bad())
    }

    pub(super) fn opt_json<T: serde::de::DeserializeOwned>(&mut self) -> Result<Option<T>, StoreError> {
        let Some(text) = self.opt_text()? else {
            return Ok(None);
        };
        serde_json::from_str(&text).map(Some).map_err(|_| self.bad())
    }
}

/// JSON text of a value that always serialises (names, lists, maps with text keys).
pub(super) fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_string(value).map_or(Value::Null, Value::Text)
}

macro_rules! params {
    ($($value:expr),* $(,)?) => { vec![$($crate::store::sql::Value::from($value)),*] };
}
pub(super) use params;

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<&String> for Value {
    fn from(text: &String) -> Self {
        Self::Text(text.clone())
    }
}

impl From<i64> for Value {
    fn from(int: i64) -> Self {
        Self::Int(int)
    }
}

impl From<u64> for Value {
    /// SQL integers are signed; nothing here counts past 2^63.
    fn from(int: u64) -> Self {
        Self::Int(i64::try_from(int).unwrap_or(i64::MAX))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Int(i64::from(flag))
    }
}

impl From<Time> for Value {
    fn from(time: Time) -> Self {
        Self::Int(time.unix_micros())
    }
}

impl From<Vec<u8>> for Value {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Blob(bytes)
    }
}

impl From<&[u8]> for Value {
    fn from(bytes: &[u8]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl From<&[u8; 32]> for Value {
    fn from(bytes: &[u8; 32]) -> Self {
        Self::Blob(bytes.to_vec())
    }
}

impl<T: Into<Self>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Self::Null, Into::into)
    }
}

macro_rules! ids {
    ($($name:ty),*) => {$(
        impl From<$name> for Value {
            fn from(id: $name) -> Self {
                Self::Text(id.to_string())
            }
        }
        impl From<&$name> for Value {
            fn from(id: &$name) -> Self {
                Self::Text(id.to_string())
            }
        }
    )*};
}
ids!(
    AgentId,
    ApprovalId,
    ConnectSessionId,
    ConnectorId,
    DecisionId,
    DelegationId,
    EngineId,
    EntryId,
    GrantId,
    HandleId,
    KeyId,
    OrgId,
    RevocationId,
    ServiceId,
    UserId
);
