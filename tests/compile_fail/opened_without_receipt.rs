use postern::{
    crypto::OdkHandle,
    domain::{grant::Grant, secret::AccessToken},
    release::open,
    store::{SecretKind, SecretRow},
};

fn peek(row: &SecretRow, key: &OdkHandle, grant: &Grant) -> AccessToken {
    open::access_token(row, key, grant, &SecretKind::AccessToken).unwrap() //~ E0308 mismatched types: expected `&AuditReceipt`, found `&SecretRow`
}

fn main() {}
