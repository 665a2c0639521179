#!/usr/bin/env python3
"""What others' libraries need for what `models-campaign members` does: KDDTrain+ learned, KDDTest+ ranked.

Processor seconds of one thread, of training alone. Wants scikit-learn, xgboost-cpu, pandas and pyarrow.

    scripts/models-peers.py [DATA]     DATA holds nsl_kdd_train.parquet; default ../shared/data/ml
"""
import os
import sys
import time

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"

import pandas
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import accuracy_score, roc_auc_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from xgboost import XGBClassifier

data = sys.argv[1] if len(sys.argv) > 1 else "../shared/data/ml"
train, test = (pandas.read_parquet(f"{data}/nsl_kdd_{part}.parquet") for part in ("train", "test"))
truth, asked = (part["label"].ne("normal").to_numpy() for part in (train, test))
names = [name for name in train.columns if name not in ("label", "difficulty")]
rows = pandas.get_dummies(train[names], dtype=float)
others = pandas.get_dummies(test[names], dtype=float).reindex(columns=rows.columns, fill_value=0.0)

# As many trees, leaves, units and rounds as ours by default (models/members).
learners = {
    "forest": RandomForestClassifier(n_estimators=100, n_jobs=1, random_state=1),
    "boost": XGBClassifier(
        n_estimators=200, learning_rate=0.1, max_leaves=31, max_depth=0, grow_policy="lossguide", tree_method="hist",
        subsample=0.8, colsample_bytree=0.7, n_jobs=1, random_state=1,
    ),
    "network": make_pipeline(
        StandardScaler(),
        MLPClassifier((64, 32), batch_size=256, max_iter=12, learning_rate_init=2e-3, random_state=1),
    ),
}
for name, learner in learners.items():
    begun = time.process_time()
    learner.fit(rows.to_numpy(), truth)
    cpu_s = time.process_time() - begun
    scores = learner.predict_proba(others.to_numpy())[:, 1]
    print(
        f"{name:8} {cpu_s:.1f} CPU s on {len(rows)} rows of {rows.shape[1]} columns; KDDTest+ "
        f"ROC-AUC {roc_auc_score(asked, scores):.4f}, accuracy at 0.5 {accuracy_score(asked, scores > 0.5):.4f}",
        flush=True,
    )
