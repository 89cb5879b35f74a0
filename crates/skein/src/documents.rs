//! Config documents from files, folders and standard input.
//!
//! Owns which files are read and that no resource comes twice. Never sends anything: what is wrong
//! with a document is told before the mesh hears of it.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use proxy_config::{DEFAULT_NAMESPACE, Name, Resource, parse_sources};

use crate::failure::{Failure, FaultLine};

/// The name that stands for standard input.
const STDIN: &str = "-";

/// How the names of the files in a folder end.
const EXTENSIONS: [&str; 3] = ["yaml", "yml", "json"];

/// The deepest folder that is searched below a named one.
const DEPTH_MAX: usize = 16;

/// How much of one input is read. The parser refuses less than this as too large, so that a larger
/// input is refused with its remedy and never held in memory as a whole.
const INPUT_BYTES_MAX: u64 = 16 << 20;

/// The most files of one command; more are refused.
const FILES_MAX: usize = 10_000;

/// Where the documents are.
#[derive(Debug, clap::Args)]
pub(crate) struct Inputs {
    /// A file (YAML or JSON, any number of documents), a folder (every .yaml, .yml and .json file
    /// in it and below, but nothing hidden) or `-` for standard input; may be given several times
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", required = true)]
    inputs: Vec<PathBuf>,
}

impl Inputs {
    /// Reads all documents; no resource comes twice. Resources of the namespace `default`, which is
    /// also that of those that say none, get `namespace` if it is given.
    pub(crate) fn load(&self, namespace: Option<&str>) -> Result<Vec<Resource>, Failure> {
        let namespace = namespace.map(parse_namespace).transpose()?;
        if self.inputs.iter().filter(|path| is_stdin(path)).count() > 1 {
            return Err(Failure::usage(
                "-f - may be given once: standard input can be read only once",
            ));
        }
        let mut files = Vec::new();
        for path in &self.inputs {
            find_files(path, &mut files)?;
        }
        let mut texts = Vec::with_capacity(files.len());
        for path in files {
            texts.push((path.display().to_string(), read(&path)?));
        }
        let sources = texts.iter().map(|(source, text)| (&**source, &**text));
        let mut resources = parse_sources(sources).map_err(|faults| Failure::invalid(&faults))?;
        if let Some(namespace) = namespace {
            for metadata in resources.iter_mut().map(|resource| &mut resource.metadata) {
                if metadata.namespace.as_str() == DEFAULT_NAMESPACE {
                    metadata.namespace = namespace.clone();
                }
            }
        }
        Ok(resources)
    }
}

fn parse_namespace(text: &str) -> Result<Name, Failure> {
    text.parse()
        .map_err(|error| Failure::usage(format!("--namespace: {error}")))
}

fn is_stdin(path: &Path) -> bool {
    path.as_os_str() == STDIN
}

/// Adds `path`, or the files in it when it is a folder, in the order of their names.
fn find_files(path: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    if is_stdin(path) || !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let before = files.len();
    search(path, DEPTH_MAX, files)?;
    if files.len() == before {
        let folder = path.display();
        return Err(Failure::failed(format!(
            "{folder} holds no .yaml, .yml or .json file"
        )));
    }
    Ok(())
}

fn search(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let unreadable =
        |error: io::Error| Failure::failed(format!("cannot read {}: {error}", folder.display()));
    let entries: Result<Vec<_>, _> = fs::read_dir(folder).map_err(unreadable)?.collect();
    let mut entries = entries.map_err(unreadable)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        // The kind of the entry itself: links to folders are not followed, they may be loops.
        if entry.file_type().map_err(unreadable)?.is_dir() {
            if depth == 0 {
                let text = format!(
                    "{} is nested deeper than {DEPTH_MAX} folders",
                    path.display()
                );
                return Err(Failure::failed(text));
            }
            search(&path, depth - 1, files)?;
        } else if path
            .extension()
            .is_some_and(|end| EXTENSIONS.iter().any(|known| end == *known))
        {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            let text = format!(
                "{} holds more than {FILES_MAX} files; apply it in parts",
                folder.display()
            );
            return Err(Failure::failed(text));
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let result = if is_stdin(path) {
        io::stdin()
            .lock()
            .take(INPUT_BYTES_MAX)
            .read_to_end(&mut bytes)
    } else {
        File::open(path).and_then(|file| file.take(INPUT_BYTES_MAX).read_to_end(&mut bytes))
    };
    let name = path.display();
    result.map_err(|error| Failure::failed(format!("cannot read {name}: {error}")))?;
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        let text = format!("{name}: byte {at} is no UTF-8 text; save the file as UTF-8");
        let file = Some(name.to_string());
        Failure::invalid_lines(vec![FaultLine {
            text,
            file,
            ..Default::default()
        }])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Kind;

    const CLUSTER: &str = "kind: Cluster\nname: api\nendpoints: [\"10.0.0.1:80\"]\n";

    fn load(paths: &[&Path], namespace: Option<&str>) -> Result<Vec<Resource>, Failure> {
        let inputs = paths.iter().map(|path| (*path).to_owned()).collect();
        Inputs { inputs }.load(namespace)
    }

    fn keys(resources: &[Resource]) -> Vec<String> {
        resources.iter().map(Resource::key).collect()
    }

    #[test]
    fn a_folder_is_read_in_order_and_without_what_is_hidden() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
        fs::create_dir_all(dir.path().join("b/deeper")).unwrap();
        write("c.yml", &CLUSTER.replace("api", "last"));
        let json = r#"{"kind": "Cluster", "name": "middle", "endpoints": ["10.0.0.1:80"]}"#;
        write("b/deeper/x.json", json);
        write("a.yaml", CLUSTER);
        write(".hidden.yaml", "this: is not read");
        write("README.md", "neither is this");
        std::os::unix::fs::symlink(dir.path(), dir.path().join("b/loop")).unwrap();
        let keys = keys(&load(&[dir.path()], None).unwrap());
        let expected =
            ["api", "middle", "last"].map(|name| format!("/skein/config/default/Cluster/{name}"));
        assert_eq!(keys, expected);
    }

    #[test]
    fn the_namespace_asked_for_is_given_to_those_that_say_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.yaml");
        fs::write(&path, format!("{CLUSTER}---\nnamespace: other\n{CLUSTER}")).unwrap();
        let keys = keys(&load(&[&path], Some("team")).unwrap());
        assert_eq!(
            keys,
            [
                "/skein/config/team/Cluster/api",
                "/skein/config/other/Cluster/api"
            ]
        );
        assert_eq!(load(&[&path], Some("a/b")).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn broken_documents_are_refused_with_their_places() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one.yaml"), dir.path().join("two.yaml"));
        fs::write(
            &one,
            "kind: Cluster\nname: api\nendpoints: []\ncolour: red\n",
        )
        .unwrap();
        fs::write(&two, "kind: [\n").unwrap();
        let failure = load(&[&one, &two], None).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        let colour = failure
            .faults
            .iter()
            .find(|fault| fault.text.contains("colour"))
            .unwrap();
        assert_eq!((colour.line, colour.column), (Some(4), Some(1)));
        assert_eq!(colour.file.as_deref(), one.to_str());
        assert!(
            failure
                .faults
                .iter()
                .any(|fault| fault.file.as_deref() == two.to_str())
        );
    }

    #[test]
    fn one_resource_in_two_files_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (dir.path().join("one.yaml"), dir.path().join("two.yaml"));
        fs::write(&one, CLUSTER).unwrap();
        fs::write(&two, CLUSTER).unwrap();
        let failure = load(&[&one, &two], None).unwrap_err();
        assert_eq!((failure.kind, failure.faults.len()), (Kind::Refused, 1));
        assert!(
            failure.faults[0].text.contains("one.yaml"),
            "{}",
            failure.faults[0].text
        );
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = load(&[&dir.path().join("nothing.yaml")], None).unwrap_err();
        assert_eq!(missing.kind, Kind::Failed);
        assert!(missing.message.contains("nothing.yaml"));
        let empty = load(&[dir.path()], None).unwrap_err();
        assert!(empty.message.contains("no .yaml"), "{}", empty.message);
        let binary = dir.path().join("b.yaml");
        fs::write(&binary, b"kind: \xff").unwrap();
        assert_eq!(load(&[&binary], None).unwrap_err().kind, Kind::Refused);
        let twice = load(&[Path::new("-"), Path::new("-")], None).unwrap_err();
        assert_eq!(twice.kind, Kind::Usage);
    }

    #[test]
    fn a_huge_input_is_refused_not_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("huge.yaml");
        fs::write(&path, vec![b'#'; 10 << 20]).unwrap();
        let failure = load(&[&path], None).unwrap_err();
        assert_eq!(failure.kind, Kind::Refused);
        assert!(
            failure.faults[0].text.contains("huge.yaml"),
            "{}",
            failure.faults[0].text
        );
    }
}
