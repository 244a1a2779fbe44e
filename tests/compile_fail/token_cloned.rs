use postern::domain::secret::RefreshToken;

fn copy(token: &RefreshToken) -> RefreshToken {
    token.clone()
}

fn main() {}
