use postern::domain::secret::AccessToken;

fn leak(token: &AccessToken) -> String {
    serde_json::to_string(token).unwrap() //~ E0277 the trait bound `postern::domain::secret::AccessToken: serde::Serialize` is not satisfied: the trait `serde_core::ser::Serialize` is not implemented for `postern::domain::secret::AccessToken`
}

fn main() {}
