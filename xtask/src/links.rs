//! Links between the documentation's files.

use anyhow::{Context, Result, bail};
use std::path::{Path, PathBuf};

/// Fails when a Markdown file of the repository points to a file that does not exist.
pub fn check(root: &Path) -> Result<()> {
    let mut files = vec![root.join("README.md")];
    collect(&root.join("docs"), &mut files)?;
    let mut broken = Vec::new();
    for file in &files {
        let text =
            std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        let directory = file.parent().unwrap_or(root);
        for target in targets(&text).filter(|target| !directory.join(target).exists()) {
            broken.push(format!("{}: {target}", file.display()));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    bail!("links to files that do not exist:\n{}", broken.join("\n"))
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in
        std::fs::read_dir(directory).with_context(|| format!("cannot read {}", directory.display()))?
    {
        let path = entry?.path();
        if path.is_dir() && !path.ends_with("docs/book") {
            collect(&path, files)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            files.push(path);
        }
    }
    Ok(())
}

/// Files that a text links to: `](file#part)`, without addresses of the web and parts of the same page.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', ' ', '\n']).next()?;
        let file = target.split('#').next()?;
        (!file.is_empty() && !file.contains("://") && !file.starts_with("mailto:")).then_some(file)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_files_that_a_text_links_to() {
        let text = "[a](b.md) ![c](d/e.svg \"title\") [f](#g) [h](https://example.org/i.md) [j](k.md#l)";
        assert_eq!(targets(text).collect::<Vec<_>>(), ["b.md", "d/e.svg", "k.md"]);
    }

    #[test]
    fn a_broken_link_is_named_with_its_file() {
        let root = std::env::temp_dir().join(format!("lanrage-links-{}", std::process::id()));
        std::fs::create_dir_all(root.join("docs")).unwrap();
        std::fs::write(root.join("README.md"), "[docs](docs/a.md)").unwrap();
        std::fs::write(root.join("docs/a.md"), "[readme](../README.md) [gone](gone.md)").unwrap();
        let error = check(&root).unwrap_err().to_string();
        std::fs::remove_dir_all(&root).unwrap();
        assert!(error.contains("docs/a.md: gone.md") && !error.contains("README.md:"), "{error}");
    }

    #[test]
    fn the_documentation_has_no_broken_links() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        check(root).unwrap();
    }
}
