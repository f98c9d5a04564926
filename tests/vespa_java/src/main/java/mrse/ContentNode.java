package mrse;

import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.DocsumReply;
import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.DocsumRequest;
import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.Feature;
import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.Hit;
import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.MonitorReply;
import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.SearchReply;
import ai.vespa.searchlib.searchprotocol.protobuf.SearchProtocol.SearchRequest;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.google.protobuf.ByteString;
import com.yahoo.compress.CompressionType;
import com.yahoo.compress.Compressor;
import com.yahoo.document.DocumentId;
import com.yahoo.io.GrowableByteBuffer;
import com.yahoo.jrt.Acceptor;
import com.yahoo.jrt.DataValue;
import com.yahoo.jrt.Int32Value;
import com.yahoo.jrt.Int8Value;
import com.yahoo.jrt.Method;
import com.yahoo.jrt.Request;
import com.yahoo.jrt.Spec;
import com.yahoo.jrt.Supervisor;
import com.yahoo.jrt.Transport;
import com.yahoo.slime.BinaryFormat;
import com.yahoo.slime.Slime;
import com.yahoo.tensor.Tensor;
import com.yahoo.tensor.serialization.TypedBinaryFormat;
import com.yahoo.vespa.config.search.RankProfilesConfig;
import com.yahoo.vespa.model.VespaModel;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;

/**
 * What the container's dispatcher talks to: writes down what it is asked (rank profile, query tree, query features) and answers with the
 * hits of the job, whose match-features are given. It neither matches nor ranks: what the content node computes is checked elsewhere.
 */
class ContentNode {

    volatile ObjectNode seen; // the last search
    private final Map<String, RankProfilesConfig.Rankprofile> profiles = new HashMap<>();
    private final JsonNode hits;

    /** hits: [{"id", "relevance", "fields": {name: text}, "features": {name: number}}], best first */
    ContentNode(VespaModel model, JsonNode hits) {
        this.hits = hits;
        for (var profile : model.getConfig(RankProfilesConfig.class, RankFunctions.itemSchema(model)).rankprofile())
            profiles.put(profile.name(), profile);
    }

    /** Listens on a free port and returns it. */
    int listen() throws Exception {
        Supervisor supervisor = new Supervisor(new Transport("content-node"));
        supervisor.addMethod(new Method("vespa.searchprotocol.ping", "bix", "bix", r -> reply(r, MonitorReply.newBuilder()
                .setOnline(true).setActiveDocs(hits.size()).setTargetActiveDocs(hits.size()).build().toByteArray())));
        supervisor.addMethod(new Method("vespa.searchprotocol.search", "bix", "bix", r -> reply(r, search(payload(r)))));
        supervisor.addMethod(new Method("vespa.searchprotocol.getDocsums", "bix", "bix", r -> reply(r, summaries(payload(r)))));
        Acceptor acceptor = supervisor.listen(new Spec(0));
        return acceptor.port();
    }

    private static byte[] payload(Request request) { // compression type, uncompressed size, data
        var parameters = request.parameters();
        return new Compressor().decompress(CompressionType.valueOf(parameters.get(0).asInt8()), parameters.get(2).asData(), 0,
                                           parameters.get(1).asInt32(), Optional.empty());
    }

    private static void reply(Request request, byte[] data) {
        request.returnValues().add(new Int8Value((byte) CompressionType.NONE.getCode()));
        request.returnValues().add(new Int32Value(data.length));
        request.returnValues().add(new DataValue(data));
    }

    private synchronized byte[] search(byte[] data) {
        try {
            SearchRequest request = SearchRequest.parseFrom(data);
            ObjectNode note = Judge.json.createObjectNode().put("profile", request.getRankProfile()).put("tree", request.getQueryTree().toString());
            ObjectNode features = note.putObject("features");
            for (var p : request.getTensorRankPropertiesList()) {
                Tensor tensor = TypedBinaryFormat.decode(Optional.empty(), new GrowableByteBuffer(p.getValue().asReadOnlyByteBuffer()));
                ArrayNode values = features.putObject(p.getName()).put("type", tensor.type().toString()).putArray("values");
                tensor.valueIterator().forEachRemaining(values::add);
            }
            seen = note;
            var reply = SearchReply.newBuilder().setTotalHitCount(hits.size()).setCoverageDocs(hits.size()).setActiveDocs(hits.size())
                                   .setTargetActiveDocs(hits.size());
            List<String> names = matchFeatures(profiles.get(request.getRankProfile()));
            names.forEach(reply::addMatchFeatureNames);
            for (JsonNode hit : hits) {
                var built = Hit.newBuilder().setGlobalId(gid(hit)).setRelevance(hit.get("relevance").asDouble());
                for (String name : names) built.addMatchFeatures(Feature.newBuilder().setNumber(hit.path("features").path(name).asDouble()));
                reply.addHits(built);
            }
            return reply.build().toByteArray();
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    /** The names under which a content node returns a profile's match-features */
    private static List<String> matchFeatures(RankProfilesConfig.Rankprofile profile) {
        List<String> names = new ArrayList<>(), renames = new ArrayList<>();
        for (var property : profile.fef().property()) {
            if (property.name().equals("vespa.match.feature")) names.add(property.value());
            if (property.name().equals("vespa.feature.rename")) renames.add(property.value());
        }
        for (int i = 0; i + 1 < renames.size(); i += 2) {
            int at = names.indexOf(renames.get(i));
            if (at >= 0) names.set(at, renames.get(i + 1));
        }
        return names;
    }

    private byte[] summaries(byte[] data) {
        try {
            Slime slime = new Slime();
            var array = slime.setObject().setArray("docsums");
            for (ByteString gid : DocsumRequest.parseFrom(data).getGlobalIdsList())
                for (JsonNode hit : hits)
                    if (gid(hit).equals(gid)) {
                        var summary = array.addObject().setObject("docsum");
                        summary.setString("documentid", hit.get("id").asText());
                        hit.get("fields").properties().forEach(f -> summary.setString(f.getKey(), f.getValue().asText()));
                    }
            return DocsumReply.newBuilder().setSlimeSummaries(ByteString.copyFrom(BinaryFormat.encode(slime))).build().toByteArray();
        } catch (Exception e) {
            throw new IllegalStateException(e);
        }
    }

    private static ByteString gid(JsonNode hit) { return ByteString.copyFrom(new DocumentId(hit.get("id").asText()).getGlobalId()); }
}
