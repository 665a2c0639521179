//! `counterflow risk | assess`: how much risk entities carry, how bad an alert is and why.

use anyhow::{Context, Result};
use cf_ledger::read::{AssessmentStory, RiskStory};
use cf_types::{BlastRadius, Tenant};
use serde_json::{Value, json};

use super::incidents::{print, values, with_reader};
use crate::{
    cli::{AssessArguments, Cli, RiskArguments},
    output::{self, Exit, Failed, Format},
};

/// Lists entities by risk, or shows one.
pub(crate) fn run(cli: &Cli, arguments: &RiskArguments) -> Result<Exit> {
    with_reader(&arguments.data, async |reader| {
        let Some(entity) = &arguments.entity else {
            let rows = reader.risks().await?.into_iter().map(|risk| {
                json!({"entity": risk.entity.to_string(), "score": risk.score, "level": risk.level, "tenant": risk.tenant})
            });
            return print(cli, &["score", "level", "entity"], rows.collect());
        };
        let story = reader.risk_story(&Tenant::default(), entity).await?;
        let story = story.with_context(|| Failed(format!("nothing is known of {entity}")))?;
        if Format::or_default(cli.output) == Format::Table {
            tell(cli, &story)
        } else {
            print(cli, &["entity"], vec![serde_json::to_value(&story)?])
        }
    })
}

/// A risk for a person.
fn tell(cli: &Cli, story: &RiskStory) -> Result<Exit> {
    let mut head = format!(
        "{}: risk {} ({}) at {}\n",
        output::printable(&story.risk.entity.to_string()),
        story.risk.score,
        story.risk.level.as_str(),
        story.at
    );
    if let Some(radius) = &story.blast_radius {
        head.push_str(&reaches(radius));
    }
    output::ignore_closed_pipe(output::text(&head))?;
    print(cli, &["first", "score", "tenths_now", "rule", "title", "state"], values(&story.contributions)?)
}

/// A blast radius in one line.
fn reaches(radius: &BlastRadius) -> String {
    let hops: Vec<String> = radius.hops.iter().map(ToString::to_string).collect();
    let named: Vec<String> = radius.named.iter().take(5).map(|reached| reached.entity.to_string()).collect();
    let named = output::printable(&named.join(", ")).to_string();
    format!("reaches {} entities ({} in 1 to 4 steps): {named}\n", radius.reached(), hops.join(" + "))
}

/// Shows how an alert is assessed.
pub(crate) fn assess(cli: &Cli, arguments: &AssessArguments) -> Result<Exit> {
    with_reader(&arguments.data, async |reader| {
        let story = reader.assessment_story(arguments.alert).await?;
        let story = story.with_context(|| Failed(format!("no alert {} was assessed", arguments.alert)))?;
        if Format::or_default(cli.output) == Format::Table {
            explain(cli, &story)
        } else {
            print(cli, &["assessment"], vec![serde_json::to_value(&story)?])
        }
    })
}

/// An assessment for a person.
fn explain(cli: &Cli, story: &AssessmentStory) -> Result<Exit> {
    let assessment = &story.assessment.assessment;
    let mut head = format!(
        "score {} ({}), base {}; confidence {} %\n",
        assessment.score,
        assessment.level.as_str(),
        assessment.base,
        assessment.confidence_percent
    );
    for entity in &story.entities {
        let name = output::printable(&entity.risk.entity.to_string()).to_string();
        head.push_str(&format!("{name}: risk {}\n", entity.risk.score));
        head.push_str(&entity.blast_radius.as_ref().map(reaches).unwrap_or_default());
    }
    output::ignore_closed_pipe(output::text(&head))?;
    let rows: Vec<Value> = assessment
        .factors
        .iter()
        .map(|factor| {
            let (above, below) = (factor.weight_permille / 1_000, factor.weight_permille % 1_000);
            json!({
                "factor": factor.factor.to_string(), "value": factor.value, "weight": format!("{above}.{below:03}"),
            })
        })
        .collect();
    print(cli, &["factor", "value", "weight"], rows)
}
