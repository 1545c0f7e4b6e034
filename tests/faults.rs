//! Dependencies that hang, fail, talk rubbish or are missing: a documented answer, or a start-up error that helps.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{World, repository};

/// A scripted stand-in for the 32B service: answers every connection with `reply`, or never (`None`).
async fn rewrite_service(reply: Option<&'static [u8]>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 65_536];
                let _ = socket.read(&mut request).await;
                match reply {
                    Some(bytes) => {
                        let _ = socket.write_all(bytes).await;
                    }
                    None => std::future::pending::<()>().await,
                }
            });
        }
    });
    url
}

async fn ask_with_remote(url: &str) -> crate::support::Reply {
    let mut world = World::new();
    world.set("REWRITER__KIND", "remote").set("REWRITER__REMOTE__URL", url).set("DEADLINES__REMOTE_REWRITE_MS", "300");
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let reply = server.ask(&reqwest::Client::new(), &key, &json!({"query": "叶黄素软糖 零售价"})).await;
    assert!(!server.log().contains("panicked"), "{}", server.log());
    reply
}

#[tokio::test]
async fn a_good_service_is_used() {
    const GOOD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n\
        {\"rewritten_query\": \"\xe7\x9b\x8a\xe7\x94\x9f\xe8\x8f\x8c \xe4\xbb\xb7\xe6\xa0\xbc\"}";
    let url = rewrite_service(Some(GOOD)).await;
    let reply = ask_with_remote(&url).await;
    assert_eq!(reply.body["data"]["rewritten_query"], "益生菌 价格");
    assert_eq!(reply.body["degraded"], json!([]));
}

#[tokio::test]
async fn a_bad_service_degrades_to_the_users_query() {
    const FAILING: &[u8] = b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\nconnection: close\r\n\r\noops";
    const GARBAGE: &[u8] = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nSure! Here is the rewrite: <think>";
    const EMPTY: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n{\"rewritten_query\": \"\"}";
    const NOT_HTTP: &[u8] = b"\x00\x01\x02 hello";
    for (name, script) in [
        ("hung", None),
        ("failing", Some(FAILING)),
        ("garbage", Some(GARBAGE)),
        ("empty", Some(EMPTY)),
        ("not http", Some(NOT_HTTP)),
    ] {
        let url = rewrite_service(script).await;
        let reply = ask_with_remote(&url).await;
        assert_eq!(reply.status, 200, "{name}");
        assert_eq!(reply.body["data"]["rewritten_query"], "叶黄素软糖 零售价", "{name}");
        assert_eq!(reply.ids()[0], "alpha-3-价格", "{name}");
        assert_ne!(reply.body["degraded"], json!([]), "{name} must be said");
    }
    // Port 9 of the loopback: nobody listens.
    let absent = ask_with_remote("http://127.0.0.1:9").await;
    assert_eq!(absent.status, 200);
    assert_ne!(absent.body["degraded"], json!([]));
}

#[test]
fn a_missing_onnxruntime_is_a_start_up_error_that_helps() {
    let mut world = World::new();
    let model = world.path("onnx");
    std::fs::create_dir(&model).expect("a folder");
    world
        .set("EMBEDDER__KIND", "fastembed")
        .set("EMBEDDER__MODEL", &model.display().to_string())
        .set("ONNXRUNTIME__LIBRARY", "/nonexistent/libonnxruntime.so");
    let error = world.try_serve().map(|_| ()).expect_err("it cannot start");
    assert!(error.contains("onnxruntime"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn a_corrupt_or_missing_model_folder_is_a_start_up_error_that_helps() {
    let mut world = World::new();
    let model = world.path("model");
    std::fs::create_dir(&model).expect("a folder");
    world.set("REWRITER__KIND", "local").set("REWRITER__MODEL", &model.display().to_string());
    let error = world.try_serve().map(|_| ()).expect_err("an empty folder is no model");
    assert!(error.contains("config.json"), "{error}");

    let shipped = repository().join("models/rewriter");
    for name in ["config.json", "tokenizer.json", "tokenizer_config.json", "recast.toml"] {
        std::fs::copy(shipped.join(name), model.join(name)).expect("the shipped model is there");
    }
    let weights = std::fs::read(shipped.join("model.safetensors")).expect("the shipped model is there");
    std::fs::write(model.join("model.safetensors"), &weights[..weights.len() / 2]).expect("a truncated file");
    let error = world.try_serve().map(|_| ()).expect_err("half a model is no model");
    assert!(error.contains("model.safetensors"), "{error}");
    assert!(!error.contains("panicked"), "{error}");
}

#[test]
fn a_typo_in_the_configuration_is_answered_with_the_key() {
    let world = World::new();
    std::fs::write(world.path("recast.toml"), "[server]\nlistne = \"127.0.0.1:0\"\n[rewriter]\nkind = \"x\"\n")
        .expect("a file");
    let output = world.run(&["config", "check"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("server.listne") && text.contains("did you mean listen") && text.contains("rewriter.kind"),
        "{text}"
    );
}

#[tokio::test]
async fn a_second_process_is_told_who_holds_the_store() {
    let world = World::new();
    let _server = world.serve();
    let error = world.try_serve().map(|_| ()).expect_err("the store has one owner");
    assert!(error.contains("in use"), "{error}");
}

/// A file system of 24 MiB, unmounted when dropped. Only root can mount one.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&at).ok()?;
        let mount = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"])
            .arg(&at)
            .output()
            .ok()?;
        mount.status.success().then_some(Self(at))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = std::process::Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_stops_episodes_but_not_answers() {
    let mut world = World::new();
    world.set("EPISODES__LOW_WATER_BYTES", "1000000");
    let Some(disk) = SmallDisk::mount(world.path("state")) else {
        println!("skipped: mounting a small file system needs root");
        return;
    };
    let key = world.key("alpha", "serve");
    let server = world.serve();
    let client = reqwest::Client::new();
    let body = json!({"query": "价格"});
    assert_eq!(server.ask(&client, &key, &body).await.body["episode_stored"], true);

    let ballast = disk.0.join("ballast");
    let mut size = 0;
    let mut file = std::fs::File::create(&ballast).expect("a file");
    while std::io::Write::write_all(&mut file, &[1; 65_536]).is_ok() {
        size += 65_536;
    }
    println!("filled the disk with {size} bytes");
    let deadline = std::time::Instant::now() + crate::support::PATIENCE;
    loop {
        let reply = server.ask(&client, &key, &body).await;
        assert_eq!(reply.status, 200, "{:?}", reply.body);
        if reply.body["episode_stored"] == false {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "episodes are still acknowledged on a full disk");
    }
    drop(file);
    std::fs::remove_file(&ballast).expect("the ballast goes");
    loop {
        if server.ask(&client, &key, &body).await.body["episode_stored"] == true {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "writes did not resume");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
