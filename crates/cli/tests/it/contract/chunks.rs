//! `?chunks`: what each piece of a file hashes to.

use super::answers::{json, store};
use crate::server::{Server, Setup, content};

/// Sizes around the borders of pieces.
const SIZES: [usize; 5] = [0, 1, (4 << 20) - 1, 4 << 20, 9 << 20];

#[tokio::test]
async fn pieces_cover_the_file_and_hash_to_what_they_say() {
    let server = Server::start();
    for size in SIZES {
        let bytes = content(size, size as u64);
        let path = format!("/v1/files/default/{size}");
        let file = store(&server, &path, &bytes).await;
        let list = json(server.get(&format!("{path}?chunks")).send().await.unwrap(), 200).await;
        assert_eq!(list["size"], size as u64);
        assert_eq!(list["blake3"], file["blake3"]);
        let chunk_size = list["chunk_size"].as_u64().unwrap() as usize;
        let chunks = list["chunks"].as_array().unwrap();
        assert_eq!(chunks.len(), size.div_ceil(chunk_size));
        for (chunk, piece) in chunks.iter().zip(bytes.chunks(chunk_size)) {
            let offset = chunk["offset"].as_u64().unwrap() as usize;
            assert_eq!(chunk["size"], piece.len() as u64);
            assert!(bytes[offset..][..piece.len()] == *piece);
            assert_eq!(chunk["blake3"], blake3::hash(piece).to_hex().as_str());
        }
        let again = json(server.get(&format!("{path}?chunks")).send().await.unwrap(), 200).await;
        assert_eq!(again, list, "kept with the content");
    }
}

#[tokio::test]
async fn pieces_belong_to_the_content_not_to_the_name() {
    let mut server = Server::start();
    let path = "/v1/files/default/f?chunks";
    store(&server, "/v1/files/default/f", &content(5 << 20, 1)).await;
    let first = json(server.get(path).send().await.unwrap(), 200).await;
    store(&server, "/v1/files/default/f", &content(5 << 20, 2)).await;
    let second = json(server.get(path).send().await.unwrap(), 200).await;
    assert_ne!(first["chunks"][1]["blake3"], second["chunks"][1]["blake3"]);
    assert_eq!(
        second["chunks"][1]["blake3"],
        blake3::hash(&content(5 << 20, 2)[4 << 20..]).to_hex().as_str()
    );
    server.stop();
    let server = Setup::new().data(&server.data).start();
    assert_eq!(json(server.get(path).send().await.unwrap(), 200).await, second);
}
