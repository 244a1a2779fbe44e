//! What a change of the KEK or of the ODK leaves as it was.

use super::*;

#[tokio::test]
async fn rotating_the_kek_keeps_every_secret_readable() {
    let world = World::new(0);
    let record = world.record().await;
    let secret = world.sealed(&record).await;
    let moved = world.keyring.rewrap_odk(&record, "two").await.unwrap();
    assert_eq!(
        (moved.id, moved.commitment, moved.kek_ref.as_str()),
        (record.id, record.commitment, "two")
    );
    let opened = world
        .keyring
        .odk(&moved)
        .await
        .unwrap()
        .open(&world.place.parts(), &secret)
        .unwrap();
    assert_eq!(*opened, b"token");
}

#[tokio::test]
async fn rotating_the_odk_leaves_the_sealed_text_alone() {
    let world = World::new(30);
    let (old, new) = (world.record().await, world.record().await);
    let (old, new) = (
        world.keyring.odk(&old).await.unwrap(),
        world.keyring.odk(&new).await.unwrap(),
    );
    let secret = old.seal(&world.place.parts(), b"token").unwrap();
    let moved = old.rewrap(&world.place.parts(), secret.clone(), &new).unwrap();
    assert_eq!(moved.sealed, secret.sealed);
    assert_eq!(*new.open(&world.place.parts(), &moved).unwrap(), b"token");
    assert_eq!(
        old.open(&world.place.parts(), &moved).unwrap_err(),
        CryptoError::WrongKey
    );
}
