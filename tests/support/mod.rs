//! Everything a test needs to run the real binary: a temporary world, a server on a free port, a client.

pub mod judge;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// How long a condition may take before a test gives up; a slow machine may raise it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A temporary folder with two tenants and a configuration; nothing heavy is loaded unless a test asks for it.
pub struct World {
    folder: tempfile::TempDir,
    overrides: Vec<(String, String)>,
}

/// Two shops that sell things of the same names, so that a leak would show.
pub const TENANTS: [&str; 2] = ["alpha", "beta"];

impl World {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        for tenant in TENANTS {
            let dir = folder.path().join("tenants").join(tenant);
            std::fs::create_dir_all(&dir).expect("a tenant folder");
            let profile = format!(
                "id = \"{tenant}\"\nname = \"{tenant}\"\ndomain = \"健康\"\nsystem_prompt = \"把问题改写成检索词。\"\n"
            );
            std::fs::write(dir.join("tenant.toml"), profile).expect("a tenant file");
            std::fs::write(dir.join("passages.jsonl"), passages(tenant)).expect("passages");
        }
        let config = "[server]\nlisten = \"127.0.0.1:0\"\n[rewriter]\nkind = \"pass_through\"\n\
             [embedder]\nkind = \"none\"\n[reranker]\nkind = \"none\"\n[retrieval]\nscore_threshold = 0.0\n\
             [tenants]\nreload_seconds = 1\nseed = true\n";
        std::fs::write(folder.path().join("recast.toml"), config).expect("a configuration");
        let mut world = Self { folder, overrides: Vec::new() };
        world.set("TENANTS__DIR", &world.path("tenants").display().to_string());
        world.set("STATE__DIR", &world.path("state").display().to_string());
        world
    }

    /// Overrides one setting, for example `REWRITER__KIND`.
    pub fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.overrides.push((format!("RECAST__{key}"), value.to_owned()));
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The command line `recast ARGS --config ...` in this world.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = self.bare_command(args);
        command.args(["--config", &self.path("recast.toml").display().to_string()]);
        command
    }

    /// The command line `recast ARGS`, for commands that take no settings.
    pub fn bare_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recast"));
        command
            .args(args)
            .current_dir(repository())
            .envs(self.overrides.iter().map(|(key, value)| (key, value)))
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().expect("the binary runs")
    }

    /// Mints a key of a tenant.
    pub fn key(&self, tenant: &str, scope: &str) -> String {
        let output = self.run(&["keys", "create", "--tenant", tenant, "--scope", scope]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("a key is text").trim().to_owned()
    }

    /// Starts the server and waits until it says where it listens.
    pub fn serve(&self) -> Server {
        self.try_serve().unwrap_or_else(|error| panic!("the server did not start: {error}"))
    }

    /// Starts the server; an error holds what it printed before it gave up.
    pub fn try_serve(&self) -> Result<Server, String> {
        let log = self.path("server.log");
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("a log file");
        let started = Instant::now();
        let mut child =
            self.command(&["serve"]).stdout(Stdio::piped()).stderr(Stdio::from(file)).spawn().expect("the binary runs");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout).lines();
        while let Some(Ok(line)) = lines.next() {
            if let Some(url) = line.strip_prefix("listening on ") {
                // The pipe must stay open, or the server's next print would fail.
                std::thread::spawn(move || lines.for_each(drop));
                return Ok(Server { child, url: url.trim().to_owned(), ready_after: started.elapsed(), log });
            }
        }
        let status = child.wait().expect("the server ends");
        Err(format!("{status}\n{}", std::fs::read_to_string(&log).unwrap_or_default()))
    }
}

fn passages(tenant: &str) -> String {
    let products = ["胶原蛋白肽饮", "胶原蛋白肽粉", "益生菌冻干粉", "叶黄素软糖"];
    let facts = [
        ("禁忌", "孕妇及哺乳期妇女不宜食用，过敏体质者慎用"),
        ("用法", "每日一次，每次一袋，饭后温水冲服"),
        ("价格", "建议零售价 298 元，活动价 239 元"),
    ];
    let mut lines = String::new();
    for (index, product) in products.iter().enumerate() {
        for (aspect, fact) in facts {
            let record = json!({
                "id": format!("{tenant}-{index}-{aspect}"),
                "doc_id": format!("{tenant}-{index}"),
                "title": format!("{product} {aspect}"),
                "text": format!("{product}：{fact}。（{tenant} 自营）"),
                "source": "catalogue",
                "metadata": {"entity": product, "aspect": aspect},
            });
            lines.push_str(&record.to_string());
            lines.push('\n');
        }
    }
    lines
}

/// The checkout, where `models/` and `data/` are.
pub fn repository() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A running server; killed when dropped.
pub struct Server {
    child: Child,
    pub url: String,
    pub ready_after: Duration,
    log: PathBuf,
}

impl Server {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, as the kernel would.
    pub fn kill(mut self) {
        self.child.kill().expect("the server can be killed");
        self.child.wait().expect("the server ends");
    }

    /// SIGTERM, and the exit status.
    pub fn terminate(&mut self) -> std::process::ExitStatus {
        let pid = self.child.id().to_string();
        let status = Command::new("kill").args(["-TERM", &pid]).status().expect("kill runs");
        assert!(status.success(), "SIGTERM was sent");
        self.child.wait().expect("the server ends")
    }

    /// What the server has logged so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Resident memory in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the server lives");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is there");
        line.split_whitespace().nth(1).and_then(|text| text.parse().ok()).expect("VmRSS is a number")
    }

    /// Asks as a chat frontend would.
    pub async fn ask(&self, client: &reqwest::Client, key: &str, body: &Value) -> Reply {
        let response = client
            .post(format!("{}/general_rag", self.url))
            .bearer_auth(key)
            .json(body)
            .send()
            .await
            .expect("the server answers");
        Reply::read(response).await
    }

    /// A plain GET.
    pub async fn get(&self, client: &reqwest::Client, key: &str, path: &str) -> Reply {
        let response = client.get(format!("{}{path}", self.url)).bearer_auth(key).send().await.expect("an answer");
        Reply::read(response).await
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Already gone is fine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Status, headers and JSON body of an answer (`Null` where the body is not JSON).
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: reqwest::header::HeaderMap,
    pub body: Value,
}

impl Reply {
    pub async fn read(response: reqwest::Response) -> Self {
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let bytes = response.bytes().await.expect("a body");
        Self { status, headers, body: serde_json::from_slice(&bytes).unwrap_or(Value::Null) }
    }

    /// Ids of the passages found, best first.
    pub fn ids(&self) -> Vec<&str> {
        let recall = self.body["data"]["recall"].as_array().map(Vec::as_slice).unwrap_or_default();
        recall.iter().filter_map(|hit| hit["id"].as_str()).collect()
    }
}
