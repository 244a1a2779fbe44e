use postern::domain::secret::AccessToken;

fn leak(token: &AccessToken) -> String {
    format!("{token}") //~ E0277 `postern::domain::secret::AccessToken` doesn't implement `std::fmt::Display`: `postern::domain::secret::AccessToken` cannot be formatted with the default formatter
}

fn main() {}
