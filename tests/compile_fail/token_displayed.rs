use postern::domain::secret::AccessToken;

fn leak(token: &AccessToken) -> String {
    format!("{token}")
}

fn main() {}
