//! `recast experiment check`: every problem of a file of definitions, before a gateway sees it.

use std::path::Path;

use anyhow::{Context, bail};
use recast_experiments::{Definition, Problem, check};
use recast_gateway::missing_services;
use serde_json::Value;

use crate::args::CheckArgs;
use crate::{config, out};

/// `recast experiment check`
pub fn run(args: &CheckArgs) -> anyhow::Result<()> {
    let settings = config::effective(&args.settings)?.settings;
    let tenants = tenant_names(&settings.tenants.dir)?;
    let text = std::fs::read_to_string(&args.file).with_context(|| args.file.display().to_string())?;
    let written = written(&args.file, &text)?;
    let count = written.len();
    let (places, definitions, mut problems) = read(written);
    problems.extend(check(&definitions, &tenants).into_iter().map(|problem| placed(problem, &places)));
    for (place, definition) in places.iter().zip(&definitions) {
        let missing = missing_services(definition, &settings).into_iter();
        let field = |arm| format!("define[{place}].arms[{arm}].rewriter");
        problems.extend(missing.map(|(arm, message)| Problem { field: field(arm), message }));
    }
    problems.sort_by_key(|problem| definition_of(&problem.field).unwrap_or(usize::MAX));
    for problem in &problems {
        out::line(&format!("{}: {}", problem.field, problem.message));
    }
    if !problems.is_empty() {
        bail!("{}: {} problem(s)", args.file.display(), problems.len());
    }
    out::line(&format!("{}: {count} definition(s), no problem", args.file.display()));
    Ok(())
}

/// The problem of one of the definitions that could be read, at the definition's place in the file.
fn placed(problem: Problem, places: &[usize]) -> Problem {
    let place = definition_of(&problem.field).and_then(|index| places.get(index));
    let rest = problem.field.split_once(']').map(|(_, rest)| rest);
    let (Some(place), Some(rest)) = (place, rest) else { return problem };
    Problem { field: format!("define[{place}]{rest}"), ..problem }
}

/// The number in `define[NUMBER]...`
fn definition_of(field: &str) -> Option<usize> {
    field.strip_prefix("define[")?.split_once(']')?.0.parse().ok()
}

/// The definitions of a file, as they are written.
///
/// # Errors
/// When the file is neither TOML with `[[experiments.define]]` nor JSON with a definition or a list of them.
fn written(file: &Path, text: &str) -> anyhow::Result<Vec<Value>> {
    let name = file.display();
    if file.extension().is_some_and(|kind| kind == "json") {
        return Ok(match serde_json::from_str(text).with_context(|| name.to_string())? {
            Value::Array(list) => list,
            one => vec![one],
        });
    }
    let table: toml::Table = text.parse().with_context(|| name.to_string())?;
    let list = table.get("experiments").and_then(|section| section.get("define")).and_then(toml::Value::as_array);
    let list = list.with_context(|| format!("{name}: holds no [[experiments.define]]"))?;
    list.iter().map(|one| serde_json::to_value(one).with_context(|| name.to_string())).collect()
}

/// Those that can be read with their places in the file, and what is wrong with the others: one that cannot be read hides
/// nothing of its neighbours.
fn read(written: Vec<Value>) -> (Vec<usize>, Vec<Definition>, Vec<Problem>) {
    let (mut places, mut definitions, mut problems) = (Vec::new(), Vec::new(), Vec::new());
    for (index, one) in written.into_iter().enumerate() {
        match serde_json::from_value(one) {
            Ok(definition) => {
                places.push(index);
                definitions.push(definition);
            }
            Err(error) => problems.push(Problem { field: format!("define[{index}]"), message: error.to_string() }),
        }
    }
    (places, definitions, problems)
}

fn tenant_names(dir: &Path) -> anyhow::Result<Vec<String>> {
    let entries = std::fs::read_dir(dir).with_context(|| format!("tenants.dir {}", dir.display()))?;
    let mut names = Vec::new();
    for entry in entries {
        let folder = entry?.path();
        if folder.join("tenant.toml").is_file() {
            names.extend(folder.file_name().map(|name| name.to_string_lossy().into_owned()));
        }
    }
    Ok(names)
}
