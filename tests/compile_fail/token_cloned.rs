use postern::domain::secret::RefreshToken;

fn copy(token: &RefreshToken) -> RefreshToken {
    token.clone() //~ E0308 mismatched types: expected `RefreshToken`, found `&RefreshToken`
}

fn main() {}
