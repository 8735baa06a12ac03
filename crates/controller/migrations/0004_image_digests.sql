-- A disk's digest is now one in which holes cost nothing (hearth-image, `digest`). `hearthd` computes those that are
-- empty when it starts.
UPDATE images SET digest = '';
