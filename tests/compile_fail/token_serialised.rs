use postern::domain::secret::AccessToken;

fn leak(token: &AccessToken) -> String {
    serde_json::to_string(token).unwrap()
}

fn main() {}
